"""What every floor uses: errors, paths, ids, amounts. Knows nothing of studies."""
