package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// lastMember is what cmdOf should return, by encoding/json's tokens: a
// map cannot tell "cmd" from a second "cmd" of another type, nor a struct "cmd"
// from "CMD".
func lastMember(raw []byte, name string) (value string, ok bool) {
	d := json.NewDecoder(strings.NewReader(string(raw)))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return "", false
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return "", false
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return "", false
		}
		if key == name {
			value, ok = v.(string)
		}
	}
	return value, ok
}

// TestCmd is found as JavaScript finds it: the last member of exactly that
// name, however it is written.
func TestCmd(t *testing.T) {
	for raw, want := range map[string]string{
		`{"cmd":"a"}`: "a",
		` { "x" : [1,{"cmd":"b"}] , "cmd" : "a" } `: "a",
		`{"cmd":"a","cmd":"b"}`:                     "b",
		`{"cmd":"a","cmd":1}`:                       "",
		`{"CMD":"a"}`:                               "",
		`{"cmd":null}`:                              "",
		`{"cmd":{"cmd":"a"}}`:                       "",
		`{"cmd":"a","x":{"cmd":"b"}}`:               "a",
		`{"cmd":"a","x":"cmd"}`:                     "a",
		`{"cmd":"a","c\u006dd":"b"}`:                "b",
		`{"x":{"cmd":"a"}}`:                         "",
		`["cmd","a"]`:                               "",
		`"cmd"`:                                     "",
		`{"\u0063md":"\u0061"}`:                     "a",
		`{"x":"\"cmd\":\"b\"","cmd":"\\"}`:          `\`,
		`{"x":"}{][,:","cmd":"a"}`:                  "a",
		`{"x":-1.5e3,"cmd":"a","y":true}`:           "a",
		`{}`:                                        "",
		`{"cmd":""}`:                                "",
		"{\"cmd\":\"\xff\"}":                        "\ufffd",
		`{"cmd":"\ud83d\ude00"}`:                    "😀",
	} {
		require.Equal(t, want, Cmd([]byte(raw)).String(), raw)
		reference, _ := lastMember([]byte(raw), "cmd")
		require.Equal(t, want, reference, raw)
	}
	require.Empty(t, Cmd(nil).String())
	require.True(t, Cmd(nil).Is(""))
}

// marshaler writes its own JSON.
type marshaler string

func (m marshaler) MarshalJSON() ([]byte, error) { return []byte(m), nil }

// TestReservedCmdIsRefused, however it is spelled and whatever encodes it;
// what only looks like one is not.
func TestReservedCmdIsRefused(t *testing.T) {
	l := newWireless()
	for _, raw := range []string{
		`{"cmd":"NODE_CLUSTER","act":"online"}`,
		`{"cmd":"NODE_x"}`,
		`{"cmd":"\u004eODE_CLUSTER"}`,
		`{"\u0063m\u0064":"NODE_HANDLE"}`,
		`{"cmd":"N\u004fDE\u005fX"}`,
		`{"cmd":1,"a":{},"cmd":"NODE_HANDLE_ACK"}`,
		"{\n\t\"cmd\" :\r\n \"NODE_X\"}",
	} {
		for _, v := range []any{json.RawMessage(raw), marshaler(raw), &struct{ json.Marshaler }{marshaler(raw)}} {
			require.ErrorContains(t, EncodeUser(v, l), "NODE_", "%T %s", v, raw)
		}
		var v any
		require.NoError(t, json.Unmarshal([]byte(raw), &v))
		require.Error(t, EncodeUser(v, l), raw)
	}
	for _, raw := range []string{
		`{"cmd":"NODE_"}`, `{"cmd":"node_x"}`, `{"cmd":"XNODE_X"}`, `{"CMD":"NODE_X"}`, `{"x":"NODE_X"}`,
		`{"x":{"cmd":"NODE_X"}}`, `[{"cmd":"NODE_X"}]`, `"NODE_X"`, `{"cmd":"NODE_X","cmd":"y"}`, `{"cmd":["NODE_X"]}`,
	} {
		require.NoError(t, EncodeUser(json.RawMessage(raw), l), raw)
	}
}

// newWireless takes any line.
func newWireless() func([]byte) error { return func([]byte) error { return nil } }

// TestEncodingIsOneLine: whatever a Marshaler returns, the message is one line
// of valid JSON, or an error.
func TestEncodingIsOneLine(t *testing.T) {
	for _, v := range []any{
		json.RawMessage("{\n\"a\": [1,\r\n2]}"), marshaler("[\n\n]"), "a\nb\r\n",
		map[string]any{"\n": "\u2028"}, json.RawMessage(nil),
	} {
		require.NoError(t, EncodeUser(v, func(line []byte) error {
			require.Equal(t, len(line)-1, strings.IndexByte(string(line), '\n'), "%q", line)
			require.True(t, json.Valid(line))
			require.NotContains(t, string(line), "\r")
			return nil
		}), "%v", v)
	}
	for _, v := range []any{json.RawMessage("{"), marshaler(""), marshaler("1\n2"), make(chan int), func() {}} {
		require.Error(t, EncodeUser(v, newWireless()), "%T %v", v, v)
	}
	require.NoError(t, EncodeUser("an encoder works after an error", newWireless()))
}

// FuzzMessage compares what is found in a message with encoding/json, on both
// ways: what is internal when it comes is refused when it is sent.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"cmd":"NODE_CLUSTER"}`, `{"cmd":"a","cmd":"NODE_X"}`, `{"\u0063md":"\u004eODE_X"}`, `[{"cmd":"NODE_X"}]`,
		`{"x":{"cmd":"NODE_X"},"cmd":"y"}`, ` { "cmd" : "NODE_X" , "y":[[],{}] } `, `{"x":"\\\"","cmd":"NODE_X"}`, `{"cmd":"NODE_\ud800"}`,
		"{\"cmd\":\"NODE_\xff\"}", `{"cmd":1e5}`, `null`, `""`, `{"a":-0.1e-7}`, "{\"cm\xffd\":\"NODE_X\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		cmd, isString := lastMember(raw, "cmd")
		require.Equal(t, cmd, Cmd(raw).String())
		require.Equal(t, isString, Cmd(raw) != nil)
		internal := len(cmd) > 5 && strings.HasPrefix(cmd, "NODE_")
		got, ok := InternalCmd(raw)
		require.Equal(t, internal, ok)
		if internal {
			require.Equal(t, cmd, got)
		}
		if utf8.Valid(raw) {
			require.Equal(t, internal, EncodeUser(json.RawMessage(raw), newWireless()) != nil)
		}
	})
}
