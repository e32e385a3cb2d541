"""Looking up host names, bounded in time and number, with a share for each organization."""
