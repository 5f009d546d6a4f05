package wgdev_test

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"vpnd/pkg/fault"
	"vpnd/pkg/wgdev"
)

// acceptable is the slow oracle: a key is good when X25519 with it gives a secret,
// and when it is the only spelling of its number modulo 2^255-19.
func acceptable(t testing.TB, k []byte) bool {
	t.Helper()
	scalar := bytes.Repeat([]byte{0x42}, 32)
	priv, err := ecdh.X25519().NewPrivateKey(scalar)
	must(t, err)
	pub, err := ecdh.X25519().NewPublicKey(k)
	must(t, err)
	if _, err := priv.ECDH(pub); err != nil {
		return false
	}
	be := bytes.Clone(k)
	for i := range 16 {
		be[i], be[31-i] = be[31-i], be[i]
	}
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	return new(big.Int).SetBytes(be).Cmp(p) < 0
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func b64(k []byte) string { return base64.StdEncoding.EncodeToString(k) }

func TestParsePublicKeyAgainstTheOracle(t *testing.T) {
	check := func(k []byte) {
		t.Helper()
		got, err := wgdev.ParsePublicKey(b64(k))
		if want := acceptable(t, k); (err == nil) != want {
			t.Errorf("%x: got %v, acceptable is %v", k, err, want)
		}
		if err == nil && !bytes.Equal(got[:], k) {
			t.Errorf("%x: got %x", k, got)
		}
		if err != nil && !errors.Is(err, fault.Invalid) {
			t.Errorf("%x: got %v, want invalid", k, err)
		}
	}
	// Every number near the edges: 0…, and p-32 up to 2^255+…, with and without
	// the top bit.
	for low := range 256 {
		for _, rest := range []byte{0x00, 0xff} {
			k := bytes.Repeat([]byte{rest}, 32)
			k[0] = byte(low)
			for _, top := range []byte{0x00, 0x7f, 0x80, 0xff} {
				k[31] = top
				check(k)
			}
		}
	}
	for _, h := range []string{ // the points of order 8
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	} {
		k, err := hex.DecodeString(h)
		must(t, err)
		check(k)
		k[31] |= 0x80
		check(k)
	}
	rng := rand.NewChaCha8([32]byte{1})
	for range 500 {
		k := make([]byte, 32)
		_, _ = rng.Read(k)
		check(k)
	}
}

func TestParsePublicKeySaysWhatIsWrong(t *testing.T) {
	good, err := wgdev.GeneratePrivateKey()
	must(t, err)
	key := good.Public().String()
	one := make([]byte, 32)
	one[0] = 1
	top := bytes.Repeat([]byte{0xff}, 32)
	for in, want := range map[string]string{
		"":                             "44 characters",
		key[:43]:                       "44 characters",
		key + "=":                      "44 characters",
		key[:10] + "\n" + key[11:]:     "base64",
		key[:42] + "\n=":               "base64",
		strings.Repeat("A", 42) + "B=": "base64", // stray bits at the end
		strings.Repeat("-", 43) + "=":  "base64", // the other alphabet
		strings.Repeat("A", 44):        "base64", // 33 bytes
		b64(make([]byte, 32)):          "all zero",
		b64(one):                       "low order",
		b64(top):                       "canonical form",
		"\xff\xfe" + strings.Repeat("A", 41) + "=": "base64",
	} {
		_, err := wgdev.ParsePublicKey(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", in, err, want)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	f.Add("")
	f.Add(b64(make([]byte, 32)))
	f.Add(b64(bytes.Repeat([]byte{9}, 32)))
	f.Add(strings.Repeat("/", 43) + "=")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := wgdev.ParsePublicKey(s)
		if err != nil {
			return
		}
		if k.String() != s {
			t.Errorf("%q comes back as %q", s, k)
		}
		if !acceptable(t, k[:]) {
			t.Errorf("%q is not acceptable", s)
		}
	})
}

func TestKeysRoundTrip(t *testing.T) {
	priv, err := wgdev.GeneratePrivateKey()
	must(t, err)
	again, err := wgdev.ParsePrivateKey(priv.Reveal())
	must(t, err)
	if again != priv || !again.Equal(priv) || again.Public() != priv.Public() {
		t.Error("private key does not round-trip")
	}
	psk, err := wgdev.GeneratePresharedKey()
	must(t, err)
	if got, err := wgdev.ParsePresharedKey(psk.Reveal()); err != nil || !got.Equal(psk) {
		t.Error("preshared key does not round-trip")
	}
	if none, err := wgdev.ParsePresharedKey(""); err != nil || !none.IsZero() || none.Reveal() != "" {
		t.Error("no preshared key does not round-trip")
	}
	if _, err := wgdev.ParsePrivateKey(b64(make([]byte, 32))); !errors.Is(err, fault.Invalid) {
		t.Errorf("zero private key: %v", err)
	}
	if !(wgdev.PrivateKey{}).Public().IsZero() {
		t.Error("the zero private key has a public key")
	}
	var wire struct{ K wgdev.Key }
	text, err := json.Marshal(struct{ K wgdev.Key }{priv.Public()})
	must(t, err, json.Unmarshal(text, &wire))
	if wire.K != priv.Public() {
		t.Errorf("JSON: %s", text)
	}
	if err := json.Unmarshal([]byte(`{"K":"`+b64(make([]byte, 32))+`"}`), &wire); err == nil {
		t.Error("JSON with a zero key was accepted")
	}
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestSecretKeysDoNotShow(t *testing.T) {
	priv, err := wgdev.GeneratePrivateKey()
	must(t, err)
	psk, err := wgdev.GeneratePresharedKey()
	must(t, err)
	peer := wgdev.Peer{PublicKey: priv.Public(), PresharedKey: psk}
	cfg := wgdev.Config{PrivateKey: priv}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", priv)
		fmt.Fprintf(&out, verb+"\n", &psk)
		fmt.Fprintf(&out, verb+"\n", peer)
		fmt.Fprintf(&out, verb+"\n", cfg)
	}
	text, err := json.Marshal(map[string]any{"a": priv, "b": psk, "c": peer, "d": cfg})
	must(t, err)
	out.Write(text)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "priv", priv, "psk", psk, "peer", peer, "cfg", cfg)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "priv", priv, "psk", psk, "peer", peer, "cfg", cfg)
	for _, s := range []string{priv.Reveal(), psk.Reveal()} {
		raw, err := base64.StdEncoding.DecodeString(s)
		must(t, err)
		for _, form := range []string{s, s[:10], hex.EncodeToString(raw[:6]), fmt.Sprint(raw[:4])[1:10], fmt.Sprintf("%#v", raw[:3])[7:20]} {
			if strings.Contains(out.String(), form) {
				t.Errorf("%q shows in:\n%s", form, out.String())
			}
		}
	}
	if !strings.Contains(out.String(), "(redacted)") {
		t.Error("nothing is redacted")
	}
}

func TestSameConfig(t *testing.T) {
	a := wgdev.Peer{PublicKey: wgdev.Key{9}, AllowedIPs: prefixes("10.0.0.1/32", "fd00::1/128"), Keepalive: 5}
	b := wgdev.Peer{PublicKey: wgdev.Key{9}, AllowedIPs: prefixes("fd00::1/128", "10.0.0.1/32", "10.0.0.1/32"), Keepalive: 5}
	if !a.SameConfig(b) {
		t.Error("order and repetition of allowed IPs must not count")
	}
	psk, err := wgdev.GeneratePresharedKey()
	must(t, err)
	for name, change := range map[string]func(*wgdev.Peer){
		"key":        func(p *wgdev.Peer) { p.PublicKey = wgdev.Key{10} },
		"preshared":  func(p *wgdev.Peer) { p.PresharedKey = psk },
		"allowed":    func(p *wgdev.Peer) { p.AllowedIPs = p.AllowedIPs[:1] },
		"keepalive":  func(p *wgdev.Peer) { p.Keepalive = 6 },
		"no allowed": func(p *wgdev.Peer) { p.AllowedIPs = nil },
	} {
		c := b
		change(&c)
		if a.SameConfig(c) {
			t.Errorf("%s does not count", name)
		}
	}
}
