package main

import "os"

// reopenOnSignal: there are no signals here. A log is open so that it cannot be moved.
func reopenOnSignal(*output) (end func()) { return func() {} }

// inode: size and time have to do here.
func inode(os.FileInfo) uint64 { return 0 }
