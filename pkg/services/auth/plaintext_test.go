package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
)

const goodNonce = "AAECAwQFBgcICQoLDA0ODw=="

func goodPlaintext() string {
	return `{"login":"alice","password":"correct horse","device":{"id":"dev_a","name":"laptop","os":"linux"},` +
		`"issued_at":"2026-03-01T12:00:00.25+01:00","nonce":"` + goodNonce + `"}`
}

func TestASoundPlaintextIsRead(t *testing.T) {
	in, err := parseSignIn([]byte(goodPlaintext()))
	if err != nil {
		t.Fatal(err)
	}
	if in.login != "alice" || in.password.Reveal() != "correct horse" || in.device != "dev_a" || in.name != "laptop" || in.os != "linux" ||
		!in.issuedAt.Equal(time.Date(2026, 3, 1, 11, 0, 0, 25e7, time.UTC)) || in.nonce[15] != 15 {
		t.Errorf("got %+v", in)
	}
	// What our own client type encodes is understood, with and without an id.
	for _, device := range []client.LoginDevice{{Name: "a", OS: "b"}, {ID: "dev_a", Name: "Büro 2 💻", OS: "plan 9"}} {
		data, err := json.Marshal(client.Login{Login: "a", Password: "b", Device: device, IssuedAt: time.Now(), Nonce: goodNonce})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseSignIn(data); err != nil || got.device != device.ID || got.name != device.Name {
			t.Errorf("%s: %+v, %v", data, got, err)
		}
	}
}

func TestAnUnsoundPlaintextNamesTheField(t *testing.T) {
	swap := func(old, new string) string { return strings.Replace(goodPlaintext(), old, new, 1) }
	for _, tc := range []struct{ name, text, field string }{
		{"empty", ``, "plaintext"},
		{"no object", `[]`, "plaintext"},
		{"cut", goodPlaintext()[:60], "plaintext.device"},
		{"trailing", goodPlaintext() + `{}`, "plaintext"},
		{"not utf-8", swap("alice", "ali\xffce"), "plaintext"},
		{"unknown", swap(`"login"`, `"admin":true,"login"`), "plaintext"},
		{"other case", swap(`"login"`, `"Login"`), "plaintext"},
		{"twice", swap(`"login"`, `"login":"bob","login"`), "plaintext.login"},
		{"missing", swap(`"login":"alice",`, ``), "plaintext.login"},
		{"null", swap(`"alice"`, `null`), "plaintext.login"},
		{"number", swap(`"alice"`, `5`), "plaintext.login"},
		{"empty login", swap(`"alice"`, `""`), "plaintext.login"},
		{"long login", swap(`alice`, strings.Repeat("a", 255)), "plaintext.login"},
		{"long password", swap(`correct horse`, strings.Repeat("a", 1025)), "plaintext.password"},
		{"empty password", swap(`correct horse`, ``), "plaintext.password"},
		{"device string", swap(`{"id":"dev_a","name":"laptop","os":"linux"}`, `"x"`), "plaintext.device"},
		{"device unknown", swap(`"os"`, `"arch":"x","os"`), "plaintext.device"},
		{"device missing os", swap(`,"os":"linux"`, ``), "plaintext.device.os"},
		{"id number", swap(`"dev_a"`, `1`), "plaintext.device.id"},
		{"long id", swap(`dev_a`, strings.Repeat("a", 65)), "plaintext.device.id"},
		{"empty name", swap(`laptop`, ``), "plaintext.device.name"},
		{"long name", swap(`laptop`, strings.Repeat("ä", 65)), "plaintext.device.name"},
		{"spaces around", swap(`laptop`, ` laptop`), "plaintext.device.name"},
		{"escape sequence", swap(`laptop`, `\u001b[31m`), "plaintext.device.name"},
		{"bidi", swap(`laptop`, `\u202epotpal`), "plaintext.device.name"},
		{"newline in os", swap(`linux`, `lin\nux`), "plaintext.device.os"},
		{"long os", swap(`linux`, strings.Repeat("a", 33)), "plaintext.device.os"},
		{"time", swap(`2026-03-01T12:00:00.25+01:00`, `yesterday`), "plaintext.issued_at"},
		{"time number", swap(`"2026-03-01T12:00:00.25+01:00"`, `1772362800`), "plaintext.issued_at"},
		{"short nonce", swap(goodNonce, `AAECAwQFBgcICQoLDA0O`), "plaintext.nonce"},
		{"long nonce", swap(goodNonce, goodNonce[:22]+"8QEQ=="), "plaintext.nonce"},
		{"unpadded nonce", swap(goodNonce, strings.TrimRight(goodNonce, "=")), "plaintext.nonce"},
		{"loose nonce bits", swap(goodNonce, goodNonce[:21]+"x=="), "plaintext.nonce"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := parseSignIn([]byte(tc.text))
			f, ok := errors.AsType[*fault.Error](err)
			if !ok || f.Code != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != tc.field {
				t.Errorf("got %v, want field %s", err, tc.field)
			}
		})
	}
}

func FuzzPlaintext(f *testing.F) {
	f.Add([]byte(goodPlaintext()))
	f.Add([]byte(`{"login":{},"device":{"name":[1,{"a":null}]}}`))
	f.Add([]byte("{\"login\":\"\\ud800\",\"\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := parseSignIn(data)
		if err != nil {
			if fault.CodeOf(err) != fault.Invalid {
				t.Errorf("got %v", err)
			}
			return
		}
		// Whatever is accepted means the same to the ordinary reader.
		var plain client.Login
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		nonce, err := base64.StdEncoding.DecodeString(plain.Nonce)
		if err != nil || string(nonce) != string(in.nonce[:]) || plain.Login != in.login || plain.Password != in.password.Reveal() ||
			plain.Device != (client.LoginDevice{ID: in.device, Name: in.name, OS: in.os}) || !plain.IssuedAt.Equal(in.issuedAt) {
			t.Errorf("two readings: %+v and %+v", plain, in)
		}
		if !utf8.ValidString(in.name) || in.name == "" || strings.ContainsAny(in.name+in.os, "\n\r\t\x00\x1b") {
			t.Errorf("accepted name %q, os %q", in.name, in.os)
		}
	})
}

func FuzzToken(f *testing.F) {
	selector, key := newSelector()
	f.Add(newToken(selector, key[:]).text())
	f.Add(tokenPrefix)
	f.Add(tokenPrefix + strings.Repeat("A", 86))
	f.Fuzz(func(t *testing.T, s string) {
		if got, ok := parseToken(s); ok && got.text() != s {
			t.Errorf("%q is read as %q", s, got.text())
		}
	})
}

func TestOnlyTheFamilyOfATokenRecognisesIt(t *testing.T) {
	selector, key := newSelector()
	_, otherKey := newSelector()
	first, second := newToken(selector, key[:]), newToken(selector, key[:])
	if first == second || first.text() == second.text() {
		t.Error("two tokens of a family are the same")
	}
	for _, tok := range []refreshToken{first, second} {
		back, ok := parseToken(tok.text())
		if !ok || back != tok || !back.sealedBy(key[:]) || back.sealedBy(otherKey[:]) {
			t.Error("a token does not survive its text form")
		}
	}
	if !first.is(first.hash()) || first.is(second.hash()) {
		t.Error("hashes do not tell tokens apart")
	}
	for i := range first {
		bent := first
		bent[i] ^= 1
		if bent.sealedBy(key[:]) {
			t.Errorf("a bent byte %d goes unnoticed", i)
		}
	}
}
