package wire

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzMembers: the members that one walk finds are those that the tokens of
// encoding/json give: the last of each name, however the name is written.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{"cmd":"NODE_GO_CLUSTER","act":"request","id":1,"msg":{"cmd":"x","id":2}}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"reply","id":1,"error":"\u00e4\ud800","code":"x"}`,
		`{"cmd":"NODE_GO_CLUSTER","act":"ask","n":3,"n":18446744073709551615,"id":-1}`,
		` {"cmd" : "x" , "\u006e" : [1, 2 ] ,"msg":null, "act" : {} } `, `[]`, `null`, `{}`, `"x"`, `{"error":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		l, ok := Read(raw)
		require.True(t, ok)
		for name, got := range map[string][]byte{"cmd": l.cmd, "act": l.act, "n": l.n, "id": l.id, "msg": l.msg, "error": l.err, "code": l.code} {
			require.Equal(t, string(lastValue(raw, name)), string(got), name)
		}
	})
}

// lastValue returns the text of the last member with that name.
func lastValue(raw []byte, name string) (value json.RawMessage) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil
		}
		if key == name {
			value = v
		}
	}
	return value
}

// BenchmarkRead is what a line costs when it comes: the one walk, against what
// encoding/json needs to check it and find the same.
func BenchmarkRead(b *testing.B) {
	for _, c := range []struct{ name, line string }{
		{"message", `{"cmd":"job","id":123456,"name":"resize","width":640,"height":480,"url":"https://example.org/a/b/c.png"}`},
		{"request", `{"cmd":"NODE_GO_CLUSTER","act":"request","id":123,"msg":{"cmd":"job","id":123456,"name":"resize","width":640,"height":480}}`},
	} {
		raw := []byte(c.line)
		b.Run(c.name+"/walk", func(b *testing.B) {
			for b.Loop() {
				l, _ := Read(raw)
				if _, ok := l.Internal(); ok {
					l.Extra()
				}
			}
		})
		b.Run(c.name+"/encoding-json", func(b *testing.B) {
			for b.Loop() {
				if !json.Valid(raw) {
					b.Fatal()
				}
				if bytes.Contains(raw, []byte(reserved)) {
					var m struct {
						Cmd, Act, Error string
						N, ID           uint64
						Msg             json.RawMessage
					}
					json.Unmarshal(raw, &m)
				}
			}
		})
	}
}

// TestLinesByHand: what is put together by hand is what the encoder would make.
func TestLinesByHand(t *testing.T) {
	inner := &Message{Cmd: CmdCluster, Act: ActNewConn, Key: "a\"<b>\u2028", Seq: new(int64(5))}
	line := inner.Line()
	outer := &Message{Cmd: CmdHandle, Type: TypeNative, Msg: line[:len(line)-1]}
	require.JSONEq(t, string(outer.Line()), string(AppendNewConn(nil, inner.Key))+"5"+CloseNewConn)

	for _, ack := range []*int64{nil, new(int64(7))} {
		for _, full := range []bool{true, false} {
			var got Message
			require.NoError(t, json.Unmarshal(AcceptedLine(ack, true, full), &got))
			require.NotNil(t, got.Seq)
			require.Equal(t, Message{Cmd: CmdCluster, Ack: ack, Accepted: new(true), Full: full, Seq: got.Seq}, got)
		}
	}
}
