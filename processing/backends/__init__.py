"""Ways to reach a model that writes, one file each: `make(model, *, device, **options)` gives a `Captioner`."""
