//go:build go1.27 && goexperiment.jsonv2

package wire

import (
	"encoding/json"
	jsonv2 "encoding/json/v2"
)

// Decode stores raw, which Read has found to be valid, in v as json.Unmarshal does.
//
// json.Unmarshal checks all of its input before it begins, so that a syntax error leaves v
// as it was. Here that is a second walk over what cannot have one. Without the option that
// asks for the check, the same decoder of encoding/json stores the same values, but ends at
// the first value that does not fit its type, and its errors are others. So whatever
// fails is decoded once more by json.Unmarshal, and ends as it does there.
func Decode(raw []byte, v any) error {
	if jsonv2.Unmarshal(raw, v, decodeChecked) == nil {
		return nil
	}
	return json.Unmarshal(raw, v)
}

// decodeChecked are the options of json.Unmarshal but the one.
var decodeChecked = jsonv2.JoinOptions(json.DefaultOptionsV1(), json.ReportErrorsWithLegacySemantics(false))
