"""Reading what upstream ships: the parsing, the video look-up and the builder base that all datasets share.

Imports run one way: inputs, documents, tables < video_index < records < cells, movies < shots < builder.
"""
