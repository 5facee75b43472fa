"""Raw behaviour logs in, model-ready Parquet shards out."""
