package share

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-cluster/cluster/internal/wire"
	"github.com/stretchr/testify/require"
)

// FuzzAddress reads what a worker says of addresses. What is understood is in its
// one spelling: asked for again in those words, it is the same.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{
		`{"act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":0,"addressType":4,"flags":0,"backlog":77,"seq":1}`,
		`{"act":"queryServer","address":null,"port":8000,"addressType":4,"backlog":false,"seq":1}`,
		`{"act":"queryServer","address":"::","port":0,"addressType":6,"flags":1,"seq":1}`,
		`{"act":"queryServer","address":"/a/\u0000b","port":-1,"addressType":-1,"readableAll":true,"writableAll":true,"seq":1}`,
		`{"act":"queryServer","address":null,"port":null,"addressType":null,"fd":0}`,
		`{"act":"queryServer","address":"0.0.0.0","port":0,"addressType":"udp4","fd":-1,"flags":4}`,
		`{"act":"queryServer","address":"fe80::1%eth0","port":1,"addressType":"udp6","go":{"named":"x","backlog":9,"mode":511,"scheduling":2,"mptcp":true}}`,
		`{"act":"queryServer","address":"@x","port":-1,"addressType":"unixgram"}`,
		`{"act":"listening","index":0,"data":null,"address":"127.0.0.1","port":36217,"addressType":4,"seq":2}`,
		`{"act":"listening","address":"/x","port":-1,"addressType":-1,"go":{"named":"x"}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var w wire.Message
		if json.Unmarshal(raw, &w) != nil {
			return
		}
		if addr, err := Reported(&w); err == nil {
			require.NotEmpty(t, addr.Network())
			_ = addr.String()
		}
		asked, err := readQuery(&w)
		if err != nil {
			return
		}
		require.NotEmpty(t, asked.Key())
		if asked.Literal == "" || strings.ContainsRune(asked.Literal, '\ufffd') {
			return // what is no UTF-8 has no JSON
		}
		again := reread(t, asked.message())
		if asked.FD >= 0 {
			again.FD = &asked.FD
		}
		same, err := readQuery(again)
		require.NoError(t, err)
		require.Equal(t, asked.Key(), same.Key())
		require.Equal(t, asked.Network, same.Network)
		require.Equal(t, asked.Mode, same.Mode)
	})
}
