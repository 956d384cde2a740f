package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var jsonSeeds = []string{
	``, ` `, `null`, `true`, `false`, `nul`, `truex`, `0`, `-0`, `00`, `-`, `1.`, `1.5`, `.5`, `1e`, `1e+`, `1E-9`, `1e700`, `12e3 `, `"`, `""`,
	`"a\n\u00e9\/"`, `"\u12g4"`, `"\u123`, `"\x"`, "\"\x01\"", "\"\xff\"", `[]`, `[ ]`, `[1,]`, `[1 2]`, `[1,[2,{"a":[]}]]`, `[`, `]`, `{}`, `{ "a" : 1 , "b" : [ ] }`,
	`{"a"}`, `{"a":}`, `{"a":1,}`, `{1:2}`, `{"a":1`, `{"a":1}}`, "\x00", "1\x00", "\r\n\t 1\r\n\t ", "\f1", `{"cmd":"count","n":1000000000}`,
}

// FuzzValid holds the scanner against json.Valid.
func FuzzValid(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		require.Equal(t, json.Valid(b), valid(b))
	})
}

func valid(b []byte) bool {
	_, ok := Read(b)
	return ok
}

// TestDepthOfMessages: values are valid as deep as encoding/json decodes them,
// and no deeper.
func TestDepthOfMessages(t *testing.T) {
	for _, brackets := range []string{"[]", `{"a":}`} {
		for _, depth := range []int{maxDepth, maxDepth + 1} {
			opening, closing := brackets[:len(brackets)-1], brackets[len(brackets)-1:]
			inner := map[string]string{"[": "", `{"a":`: "1"}[opening]
			b := []byte(strings.Repeat(opening, depth) + inner + strings.Repeat(closing, depth))
			require.Equal(t, json.Valid(b), valid(b), depth)
			require.Equal(t, depth == maxDepth, valid(b))
		}
	}
}
