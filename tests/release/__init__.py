"""What a release is checked for: `make release`, and `make bare` in an empty Debian. docs/release.md says it in words."""
