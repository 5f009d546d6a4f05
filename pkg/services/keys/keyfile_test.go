package keys

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// The parser decides whether a key is replaced, so it is tested from inside.
func FuzzParseKeyFile(f *testing.F) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	all := slots()
	for i, s := range all {
		secret, err := s.scheme.generate()
		if err != nil {
			f.Fatal(err)
		}
		_, data, err := encodeKeyFile(s, secret, now)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), data)
		f.Add(byte(i), data[:len(data)-3])
		f.Add(byte(i), append(bytes.Clone(data), '{'))
		f.Add(byte(i+1), data)
	}
	f.Add(byte(0), []byte(`{"version":1,"kind":"token","algorithm":"Ed25519","kid":"","state":"active","created_at":"2026-01-01T00:00:00Z","private_key":null}`))
	f.Add(byte(0), []byte(`null`))
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		s := all[int(which)%len(all)]
		got, err := parseKeyFile(data, s)
		if err != nil {
			return
		}
		if got.kid != keyID(got.public) || got.private == nil || got.createdAt.IsZero() {
			t.Errorf("accepted an unsound key: %+v", got)
		}
	})
}

func TestParserErrorsDoNotQuoteTheKey(t *testing.T) {
	s := slots()[0]
	secret, err := s.scheme.generate()
	if err != nil {
		t.Fatal(err)
	}
	_, data, err := encodeKeyFile(s, secret, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	_, b64, _ := strings.Cut(string(data), `"private_key": "`)
	b64, _, _ = strings.Cut(b64, `"`)
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x15
		if _, err := parseKeyFile(bad, s); err != nil && strings.Contains(err.Error(), b64[5:15]) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
}
