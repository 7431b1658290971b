"""The values that the paper and the released code report, to be shown beside our own."""
