// Package operator tests what package admin gets beyond the public API.
package operator
