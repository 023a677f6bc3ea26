"""The steps of one layer, one file per kind of layer; `writing.stack` puts layers together."""
