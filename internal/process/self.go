package process

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Self is this program as it was started.
type Self struct {
	// Args are its arguments, the program's name first. They are copied, since a program
	// may change os.Args, as one with subcommands does.
	Args []string
	// Executable is its path.
	Executable string
	// Dir is the working directory at its start, by the path by which it was entered. So
	// a symbolic link in it stays one, and can be followed to the next release.
	Dir string

	argv0   string
	path    string      // see findStartPath
	dirInfo os.FileInfo // of Dir; nil if it cannot be told
	dirLink string      // a path to it through a symbolic link, or ""
}

// FindSelf returns this program. It has to be called before anything changes the working
// directory.
func FindSelf() *Self {
	s := &Self{Args: slices.Clone(os.Args), argv0: os.Args[0]}
	s.Executable, _ = os.Executable()
	s.Dir, _ = os.Getwd()
	s.path = findStartPath(s.argv0, s.Dir)
	if s.Executable == "" && s.path != "" { // no /proc: the file that the path leads to now
		s.Executable, _ = filepath.EvalSymlinks(s.path)
	}
	s.dirInfo, _ = os.Stat(".")
	s.dirLink = findDirLink(s.Dir, s.path)
	return s
}

// findDirLink returns a path to the directory that leads through a symbolic link: the one
// by which the directory was entered, or the one through which the program was started. It
// returns "" if there is none.
func findDirLink(dir, program string) string {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return ""
	}
	if real != dir {
		return dir
	}
	for program != "" && program != filepath.Dir(program) {
		program = filepath.Dir(program)
		release, err := filepath.EvalSymlinks(program)
		if err != nil || release == program {
			return "" // no link leads here
		}
		if rest, inside := strings.CutPrefix(real, release); inside && (rest == "" || rest[0] == filepath.Separator) {
			return program + rest
		}
	}
	return ""
}

// NewDir returns the working directory for a new version of this program: the directory
// that the symbolic link leads to now. It is "" if that is still this program's, or if
// this process has changed its directory.
func (s *Self) NewDir() string {
	now, err := os.Stat(".")
	if s.dirLink == "" || s.dirInfo == nil || err != nil || !os.SameFile(now, s.dirInfo) {
		return ""
	}
	dir, err := filepath.EvalSymlinks(s.dirLink)
	if err != nil {
		return ""
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() || os.SameFile(info, now) {
		return ""
	}
	return dir
}

// StartDir is the directory in which this program would be started anew, or "" if this
// process is in it.
func (s *Self) StartDir() string {
	if dir := s.NewDir(); dir != "" {
		return dir
	}
	if now, err := os.Stat("."); err == nil && s.dirInfo != nil && os.SameFile(now, s.dirInfo) {
		return ""
	}
	return s.Dir
}

// Inherit takes over the path that the program before an upgrade had. A program that was
// executed by a descriptor cannot find it itself.
func (s *Self) Inherit(path string) {
	if s.path == "" {
		s.path = path
	}
}
