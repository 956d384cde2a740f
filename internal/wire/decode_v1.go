//go:build !go1.27 || !goexperiment.jsonv2

package wire

import "encoding/json"

// Decode stores raw, which Read has found to be valid, in v as json.Unmarshal does.
func Decode(raw []byte, v any) error { return json.Unmarshal(raw, v) }
