"""The evaluation: MMlib's and MMM's flows run with this project, beside their published figures. `make paper` runs it whole."""
