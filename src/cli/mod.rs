//! Layer 5: arguments, progress bars, tables, exit codes.
