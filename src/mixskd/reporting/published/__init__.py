"""The values of the paper and of its released code, which are shown beside ours."""
