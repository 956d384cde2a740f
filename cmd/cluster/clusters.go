package main

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// socket is where a master is asked.
type socket struct {
	name string // of the cluster
	pid  string // of the master, as the file's name has it: it may be that of another namespace
	path string
}

// socketName is what package admin calls a default socket. It has no other characters,
// so that a name is harmless wherever it is shown.
var socketName = regexp.MustCompile(`/cluster/([A-Za-z0-9_-][A-Za-z0-9_.-]*)\.([0-9]+)\.sock$`)

// running are the sockets of clusters of this user that run, of all users for root: those
// that the kernel lists, and those in the directories that this user's masters have.
func running() (all []socket) {
	paths := bound()
	for _, dir := range socketDirs() {
		more, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
		for _, path := range more {
			if !slices.Contains(paths, path) && answers(path) {
				paths = append(paths, path)
			}
		}
	}
	for _, path := range paths {
		m := socketName.FindStringSubmatch(path)
		if m == nil || !usable(path) {
			continue
		}
		all = append(all, socket{m[1], m[2], path})
	}
	slices.SortFunc(all, func(a, b socket) int { return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.path, b.path)) })
	return slices.CompactFunc(all, func(a, b socket) bool { return a.path == b.path })
}

// socketDirs are the directories in which package admin makes sockets for this user, by
// whatever environment its masters were started.
func socketDirs() (dirs []string) {
	add := func(dir string) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, filepath.Join(dir, "cluster"))
		}
	}
	first, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	uid := strconv.Itoa(os.Getuid())
	for _, dir := range []string{first, os.Getenv("XDG_RUNTIME_DIR"), filepath.Join(os.TempDir(), "cluster-"+uid)} {
		add(dir)
	}
	if uid == "0" {
		add("/run")
	} else {
		add("/run/user/" + uid) // as XDG_RUNTIME_DIR has it, in a shell without
	}
	return dirs
}

// choose is the cluster that the flags name, or the only one.
func (g *global) choose() (socket, error) {
	if g.socket != "" {
		s := socket{path: g.socket, name: strings.TrimSuffix(filepath.Base(g.socket), ".sock")}
		if abs, err := filepath.Abs(g.socket); err == nil {
			if m := socketName.FindStringSubmatch(abs); m != nil {
				s.name, s.pid = m[1], m[2]
			}
		}
		return s, nil
	}
	var all []socket
	for _, s := range running() {
		if g.name == "" || g.name == s.name || g.name == s.name+"."+s.pid {
			all = append(all, s)
		}
	}
	switch {
	case len(all) == 1:
		return all[0], nil
	case len(all) == 0 && g.name != "":
		return socket{}, none("no cluster %q of this user runs; cluster lists those that do", g.name)
	case len(all) == 0:
		return socket{}, none("no cluster of this user runs")
	}
	names := make([]string, 0, len(all))
	for _, s := range all {
		names = append(names, s.name+"."+s.pid)
	}
	return socket{}, usage("several clusters run, name one with -c: %s", strings.Join(names, ", "))
}

// errGone is that nobody listens at a socket.
var errGone = errors.New("nobody listens there")
