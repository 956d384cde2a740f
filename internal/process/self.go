package process

import "os"

// Self is this program as it was started.
type Self struct {
	// Executable is its path.
	Executable string
	// Dir is the working directory at its start, by the path by which that was
	// entered: a symbolic link to a release that moves is followed.
	Dir string

	argv0 string
	path  string // see findStartPath
}

// FindSelf is to be called before anything changes the working directory.
func FindSelf() *Self {
	s := &Self{argv0: os.Args[0]}
	s.Executable, _ = os.Executable()
	s.Dir, _ = os.Getwd()
	s.path = findStartPath(s.argv0, s.Dir)
	return s
}
