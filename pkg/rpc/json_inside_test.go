package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"
)

// strictly is strictUnmarshal's judgement, made slowly: token by token.
func strictly(data []byte) bool {
	if !utf8.Valid(data) || !json.Valid(data) {
		return false
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var value func() bool
	value = func() bool {
		tok, err := dec.Token()
		if err != nil {
			return false
		}
		switch tok {
		case json.Delim('{'):
			seen := map[string]bool{}
			for dec.More() {
				key, err := dec.Token()
				if err != nil || seen[fmt.Sprint(key)] {
					return false
				}
				seen[fmt.Sprint(key)] = true
				if !value() {
					return false
				}
			}
		case json.Delim('['):
			for dec.More() {
				if !value() {
					return false
				}
			}
		default:
			return true
		}
		_, err = dec.Token()
		return err == nil
	}
	if !value() {
		return false
	}
	_, err := dec.Token()
	return err == io.EOF
}

// FuzzStrictUnmarshal compares with the slow judgement, where escapes that
// encoding/json replaces are left out.
func FuzzStrictUnmarshal(f *testing.F) {
	for _, s := range []string{
		`{"a":{"b":[1,{"c":null}]}}`, `{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `[{"a":":"},{"a":"\""}]`, `{"\u0061":1,"a":2}`,
		"\"\xff\"", `{"a":1e999}`, `[[[[`, `"\ud83d\ude00"`, `{"":{"":1}}`, `1`, `nul`, "{\"\xff\":1}", `{"a":[}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		err := strictUnmarshal(data, &v)
		if err != nil {
			if fl, ok := parseFlaw(err.Error()); !ok || !strings.HasPrefix(fl.path, "body") || fl.message == "" {
				t.Errorf("%q: %q", data, err)
			}
		}
		if bytes.Contains(data, []byte(`\u`)) {
			return // judged below
		}
		want := strictly(data)
		if want && err != nil {
			var plain any
			want = json.Unmarshal(data, &plain) == nil // numbers that no float64 holds
		}
		if got := err == nil; got != want {
			t.Errorf("%q: accepted %v, want %v (%v)", data, got, want, err)
		}
	})
}

// TestEscapesAreTakenOrRefusedWhole goes through every pair of a kind of escape.
func TestEscapesAreTakenOrRefusedWhole(t *testing.T) {
	kinds := map[string]string{"letter": `\u0061`, "nul": `\u0000`, "high": `\ud83d`, "low": `\ude00`, "quote": `\"`, "backslash": `\\`, "plain": "u", "none": ""}
	for a, ea := range kinds {
		for b, eb := range kinds {
			for c, ec := range kinds {
				text := `{"k":"` + ea + eb + ec + `"}`
				whole := strings.ReplaceAll(a+" "+b+" "+c, "none", "")
				whole = strings.Join(strings.Fields(whole), " ")
				left := strings.ReplaceAll(whole, "high low", "pair")
				want := !strings.Contains(left, "high") && !strings.Contains(left, "low") && !strings.Contains(left, "nul")
				var v any
				err := strictUnmarshal([]byte(text), &v)
				if (err == nil) != want {
					t.Errorf("%s (%s): %v, want accepted %v", text, whole, err, want)
				}
				if err != nil && !strings.Contains(err.Error(), "body.k") {
					t.Errorf("%s: %q does not name body.k", text, err)
				}
			}
		}
	}
}
