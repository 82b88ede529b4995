"""From a checkpoint to recommendations: recommender, sessions, search index, pipeline."""
