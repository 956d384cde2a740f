// Package admin has the tests of package admin with the programs that operators use: see
// main_linux_test.go. It is a module of its own, since they need Prometheus' client
// library.
package admin
