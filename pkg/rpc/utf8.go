package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// badUTF8 starts the message of an error whose rest is the path of the field.
const badUTF8 = "is not valid UTF-8: "

// strictUnmarshal is json.Unmarshal that refuses invalid UTF-8 instead of
// replacing it: encoding/json would silently turn a broken name into another.
func strictUnmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New(badUTF8 + invalidUTF8Path(data)) // huma keeps nothing of it but the text
	}
	return json.Unmarshal(data, v)
}

// invalidUTF8Path names the innermost value that holds the first invalid byte.
// Broken JSON before that point gives the nearest place reached.
func invalidUTF8Path(data []byte) string {
	bad := 0
	for bad < len(data) {
		r, n := utf8.DecodeRune(data[bad:])
		if r == utf8.RuneError && n <= 1 {
			break
		}
		bad += n
	}
	type level struct {
		object bool
		key    string
		index  int
		isKey  bool // the next string is a key
	}
	var stack []level
	path := func() string {
		p := "body"
		for _, l := range stack {
			if l.object {
				if l.key != "" {
					p += "." + l.key
				}
			} else {
				p += "[" + strconv.Itoa(l.index) + "]"
			}
		}
		return p
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	done := func() { // a value ended
		if n := len(stack); n > 0 {
			if stack[n-1].object {
				stack[n-1].isKey = true
			} else {
				stack[n-1].index++
			}
		}
	}
	for {
		tok, err := dec.Token()
		if err != nil {
			return path()
		}
		past := int(dec.InputOffset()) > bad
		if n := len(stack); n > 0 && stack[n-1].object && stack[n-1].isKey && tok != json.Delim('}') {
			if past {
				return path()
			}
			stack[n-1].key, stack[n-1].isKey = fmt.Sprint(tok), false
			continue
		}
		switch tok {
		case json.Delim('{'):
			stack = append(stack, level{object: true, isKey: true})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
			done()
		default:
			if past {
				return path()
			}
			done()
		}
	}
}
