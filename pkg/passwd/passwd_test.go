package passwd_test

import (
	"errors"
	"strings"
	"testing"

	"vpnd/pkg/fault"
	"vpnd/pkg/passwd"
)

// cheap keeps tests quick; only benchmarks use the real parameters.
var cheap = passwd.Params{Memory: 64, Time: 1, Threads: 2}

const good = "correct horse"

func hash(t testing.TB, p passwd.Params) string {
	t.Helper()
	h, err := p.Hash(good)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestDefaultIsTheSecondChoiceOfRFC9106(t *testing.T) {
	if got, want := passwd.Default(), (passwd.Params{Memory: 65536, Time: 3, Threads: 4}); got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	h := hash(t, passwd.Default())
	if !strings.HasPrefix(h, "$argon2id$v=19$m=65536,t=3,p=4$") {
		t.Fatalf("got %s", h)
	}
	part := strings.Split(h, "$")
	if len(part[4]) != 22 || len(part[5]) != 43 { // 16 and 32 bytes in base64
		t.Fatalf("salt or tag of another size: %s", h)
	}
}

// The hash is a test vector of the reference implementation of Argon2.
func TestAgreesWithTheReferenceImplementation(t *testing.T) {
	const h = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	ok, rehash, err := passwd.Default().Verify(h, "password")
	if err != nil || !ok || !rehash {
		t.Fatalf("got %t, %t, %v", ok, rehash, err)
	}
}

func TestVerify(t *testing.T) {
	h := hash(t, cheap)
	other := cheap
	other.Time++
	for name, c := range map[string]struct {
		params     passwd.Params
		password   string
		ok, rehash bool
	}{
		"right":                      {cheap, good, true, false},
		"wrong":                      {cheap, good + " ", false, false},
		"empty":                      {cheap, "", false, false},
		"prefix":                     {cheap, good[:5], false, false},
		"very long":                  {cheap, strings.Repeat(good, 10_000), false, false},
		"right, other parameters":    {other, good, true, true},
		"wrong, no reason to rehash": {other, "something else", false, false},
	} {
		ok, rehash, err := c.params.Verify(h, c.password)
		if err != nil || ok != c.ok || rehash != c.rehash {
			t.Errorf("%s: got %t, %t, %v", name, ok, rehash, err)
		}
	}
}

func TestTwoHashesOfOnePasswordDiffer(t *testing.T) {
	if a, b := hash(t, cheap), hash(t, cheap); a == b {
		t.Fatal("the salt is not random")
	}
}

func TestPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		password string
		ok       bool
	}{
		"7 bytes":                   {strings.Repeat("x", 7), false},
		"8 bytes":                   {strings.Repeat("x", 8), true},
		"8 bytes of 4 characters":   {"üüüü", true},
		"1024 bytes":                {strings.Repeat("x", 1024), true},
		"1025 bytes":                {strings.Repeat("x", 1025), false},
		"half a character":          {"12345678\xc3", false},
		"empty":                     {"", false},
		"spaces are characters":     {"        ", true},
		"zero bytes are characters": {"\x00\x00\x00\x00\x00\x00\x00\x00", true},
	} {
		_, err := cheap.Hash(c.password)
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && (!errors.Is(err, fault.Invalid) || len(fault.From(err).Fields) != 1) {
			t.Errorf("%s: got %#v, want invalid with its field", name, err)
		}
		if err != nil && len(c.password) > 6 && strings.Contains(err.Error(), c.password) {
			t.Errorf("%s: the error shows the password", name)
		}
	}
}

func TestParamsOutOfBoundsAreInvalid(t *testing.T) {
	for name, p := range map[string]passwd.Params{
		"zero":             {},
		"no passes":        {Memory: 64, Threads: 1},
		"no threads":       {Memory: 64, Time: 1},
		"too little":       {Memory: 31, Time: 1, Threads: 4},
		"too much":         {Memory: passwd.MaxMemory + 1, Time: 1, Threads: 4},
		"too long":         {Memory: 64, Time: passwd.MaxTime + 1, Threads: 4},
		"too many threads": {Memory: 4096, Time: 1, Threads: passwd.MaxThreads + 1},
		"too much work":    {Memory: passwd.MaxMemory, Time: 5, Threads: 4},
	} {
		if err := p.Validate(); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := passwd.NewWorkers(p, 0); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: workers: got %v", name, err)
		}
		if _, err := p.Hash(good); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: hash: got %v", name, err)
		}
	}
	for name, p := range map[string]passwd.Params{
		"first choice of RFC 9106": {Memory: 2 << 20, Time: 1, Threads: 4},
		"OWASP":                    {Memory: 19 << 10, Time: 2, Threads: 1},
	} {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Someone who can write one row must not be able to stop the service with it:
// each of these would take gigabytes or minutes, or panic in the library.
func TestForgedHashesAreRefusedAtOnce(t *testing.T) {
	const salt, tag = "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, s := range []string{
		"", "$", "$$$$$", "plain", good,
		"$argon2id$v=19$m=4294967295,t=1,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=64,t=4294967295,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=2097152,t=100,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + tag,
		"$argon2id$v=19$m=64,t=1,p=256$" + salt + "$" + tag,
		"$argon2id$v=19$m=064,t=1,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=+64,t=1,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$t=1,m=64,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=64,t=1,p=1,x=1$" + salt + "$" + tag,
		"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + tag,
		"$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + tag,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$",
		"$argon2id$v=19$m=64,t=1,p=1$$" + tag,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + tag + "=",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + tag + "$",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + tag + "\n",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + strings.Repeat("A", 4000),
	} {
		ok, _, err := cheap.Verify(s, "password")
		if ok || err == nil {
			t.Errorf("%q: got %t, %v", s, ok, err)
			continue
		}
		if got := fault.CodeOf(err); got != fault.Internal {
			t.Errorf("%q: code %s, want internal", s, got)
		}
		if strings.Contains(err.Error(), tag) {
			t.Errorf("the error shows the hash: %v", err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(hash(f, cheap), good)
	f.Add("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q", "password")
	f.Add("$argon2id$v=19$m=1048576,t=8,p=4$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5Q", "password")
	f.Fuzz(func(t *testing.T, encoded, password string) {
		p, err := passwd.Reparse(encoded)
		if err != nil {
			if _, _, err := cheap.Verify(encoded, password); err == nil {
				t.Fatalf("verify accepted %q", encoded)
			}
			return
		}
		if p != encoded {
			t.Fatalf("%q was read as %q", encoded, p)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	h := hash(b, passwd.Default())
	b.ReportAllocs()
	for b.Loop() {
		if ok, _, err := passwd.Default().Verify(h, good); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
