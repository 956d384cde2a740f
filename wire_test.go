package cluster

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzWire: parseWire reads what encoding/json would.
func FuzzWire(f *testing.F) {
	for _, s := range []string{
		`{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":1}}`,
		`{"cmd":"NODE_CLUSTER","ack":7,"accepted":true,"seq":3}`,
		`{"cmd":"NODE_CLUSTER","ack":null,"accepted":false,"seq":-3,"seq":4}`,
		`{"CMD":"NODE_CLUSTER","act":1,"key":"\u00e4\ud800","ack":1.5,"msg":null}`,
		`{"cmd":"NODE_CLUSTER","errno":-98,"key":"null:1:4:undefined:0","ack":1,"data":null,"seq":0}`,
		` {"cmd" : "x" , "ack" : 12 } `, `[]`, `null`, `{}`, `"x"`, `{"ack":9223372036854775808}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return
		}
		var want wire
		wantErr := json.Unmarshal(raw, &want)
		got, err := parseWire(raw)
		require.Equal(t, wantErr == nil, err == nil, "%v, %v", wantErr, err)
		if err == nil {
			require.Equal(t, want, got)
		}
	})
}

// TestLinesByHand: what is put together by hand is what the encoder would make.
func TestLinesByHand(t *testing.T) {
	inner := &wire{Cmd: cmdCluster, Act: actNewConn, Key: "a\"<b>\u2028", Seq: ptr(int64(5))}
	line := inner.line()
	outer := &wire{Cmd: cmdHandle, Type: typeNative, Msg: line[:len(line)-1]}
	require.JSONEq(t, string(outer.line()), string(appendNewConn(nil, inner.Key))+"5"+closeNewConn)

	for _, ack := range []*int64{nil, ptr(int64(7))} {
		var got wire
		require.NoError(t, json.Unmarshal(acceptedLine(ack, true), &got))
		require.NotNil(t, got.Seq)
		require.Equal(t, wire{Cmd: cmdCluster, Ack: ack, Accepted: ptr(true), Seq: got.Seq}, got)
	}
}
