"""Labels: from what stands in a column to classes, sets of classes or numbers."""
