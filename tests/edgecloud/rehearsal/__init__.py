"""Files run as a board will, in processes of their own."""
