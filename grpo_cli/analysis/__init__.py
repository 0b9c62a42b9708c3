"""Reports on the responses and metrics of a run or a sweep."""
