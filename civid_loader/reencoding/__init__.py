"""Training copies of a dataset: small videos that are quick to decode.

`proxies.proxies` plans and seals, `chunks` encodes in processes and journals, `encoding` makes one copy, `sound` its
audio, `tables` writes the rows that point to the copies and the shards of them.
"""
