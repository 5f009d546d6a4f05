package keys_test

import (
	"crypto/hpke"
	"encoding/base64"
	"testing"

	"vpnd/pkg/api/client"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/services/keys"
)

// seal is what a client does.
func seal(t testing.TB, l keysapi.LoginKey, info string, plain []byte) *keysapi.OpenRequest {
	t.Helper()
	kem, err := hpke.NewKEM(l.KEM)
	if err != nil {
		t.Fatal(err)
	}
	kdf, err := hpke.NewKDF(l.KDF)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := hpke.NewAEAD(l.AEAD)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(l.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := kem.NewPublicKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(pub, kdf, aead, []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	ct, err := s.Seal(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	req := &keysapi.OpenRequest{}
	req.Body.KID = l.KID
	req.Body.Enc = base64.StdEncoding.EncodeToString(enc)
	req.Body.Ciphertext = base64.StdEncoding.EncodeToString(ct)
	return req
}

func loginKeys(t testing.TB, k *keys.Keeper) []keysapi.LoginKey {
	t.Helper()
	l, err := k.LoginKeys(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return l.Keys
}

func TestSealedSignInsOpenWithEachKey(t *testing.T) {
	w := newWorld(t)
	sealedBefore := seal(t, loginKeys(t, w.start(t, ""))[0], client.LoginInfo, []byte("before the restart"))
	k := w.start(t, "")
	got, err := k.Open(t.Context(), sealedBefore)
	if err != nil || string(got.Plaintext) != "before the restart" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, l := range loginKeys(t, k) {
		got, err := k.Open(t.Context(), seal(t, l, client.LoginInfo, []byte("hello")))
		if err != nil || string(got.Plaintext) != "hello" {
			t.Errorf("kem %#x: got %v, %v", l.KEM, got, err)
		}
	}
}

func TestWhatIsNotSealedForUsIsRefusedWithAReason(t *testing.T) {
	k := newWorld(t).start(t, "")
	all := loginKeys(t, k)
	good := seal(t, all[0], client.LoginInfo, []byte("hello"))
	edit := func(f func(*keysapi.OpenRequest)) *keysapi.OpenRequest {
		r := *good
		f(&r)
		return &r
	}
	for name, tc := range map[string]struct {
		req    *keysapi.OpenRequest
		reason string
	}{
		"unknown kid": {edit(func(r *keysapi.OpenRequest) { r.Body.KID = "0000000000000000" }), "unknown_key"},
		"other kid":   {edit(func(r *keysapi.OpenRequest) { r.Body.KID = all[1].KID }), "not_sealed_for_us"},
		"other info":  {seal(t, all[1], "vpnd login v2", []byte("hello")), "not_sealed_for_us"},
		"other key":   {edit(func(r *keysapi.OpenRequest) { r.Body.Enc = seal(t, all[0], client.LoginInfo, nil).Body.Enc }), "not_sealed_for_us"},
		"empty":       {edit(func(r *keysapi.OpenRequest) { r.Body.Enc, r.Body.Ciphertext = "", "" }), "not_sealed_for_us"},
		"short enc":   {edit(func(r *keysapi.OpenRequest) { r.Body.Enc = "AAAA" }), "not_sealed_for_us"},
		"zero point": {edit(func(r *keysapi.OpenRequest) {
			r.Body.KID, r.Body.Enc = all[1].KID, base64.StdEncoding.EncodeToString(make([]byte, 32))
		}), "not_sealed_for_us"},
		"enc no base64":   {edit(func(r *keysapi.OpenRequest) { r.Body.Enc = "!" }), ""},
		"text no base64":  {edit(func(r *keysapi.OpenRequest) { r.Body.Ciphertext = "_-" }), ""},
		"base64 unpadded": {edit(func(r *keysapi.OpenRequest) { r.Body.Ciphertext = "AA" }), ""},
	} {
		_, err := k.Open(t.Context(), tc.req)
		if fault.CodeOf(err) != fault.Invalid || fault.ReasonOf(err) != tc.reason {
			t.Errorf("%s: got %v, reason %q", name, err, fault.ReasonOf(err))
		}
	}
}

func FuzzOpenGarbage(f *testing.F) {
	k, err := keys.New(keys.Config{Dir: f.TempDir()}, keys.Deps{})
	if err != nil {
		f.Fatal(err)
	}
	if err := k.Bootstrap(f.Context()); err != nil {
		f.Fatal(err)
	}
	all := loginKeys(f, k)
	for _, l := range all {
		r := seal(f, l, "another info", []byte("x"))
		enc, _ := base64.StdEncoding.DecodeString(r.Body.Enc)
		ct, _ := base64.StdEncoding.DecodeString(r.Body.Ciphertext)
		f.Add(l.KEM == 0x647a, enc, ct)
		f.Add(l.KEM == 0x647a, enc[:len(enc)-1], ct)
		f.Add(l.KEM == 0x647a, make([]byte, len(enc)), []byte{})
	}
	f.Fuzz(func(t *testing.T, hybrid bool, enc, ct []byte) {
		req := &keysapi.OpenRequest{}
		req.Body.KID = all[1].KID
		if hybrid {
			req.Body.KID = all[0].KID
		}
		req.Body.Enc = base64.StdEncoding.EncodeToString(enc)
		req.Body.Ciphertext = base64.StdEncoding.EncodeToString(ct)
		if _, err := k.Open(t.Context(), req); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzOpenText(f *testing.F) {
	k, err := keys.New(keys.Config{Dir: f.TempDir()}, keys.Deps{})
	if err != nil {
		f.Fatal(err)
	}
	if err := k.Bootstrap(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Add("", "", "")
	f.Add(loginKeys(f, k)[1].KID, "AA==", "\xff")
	f.Fuzz(func(t *testing.T, kid, enc, ct string) {
		req := &keysapi.OpenRequest{}
		req.Body.KID, req.Body.Enc, req.Body.Ciphertext = kid, enc, ct
		if _, err := k.Open(t.Context(), req); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("got %v", err)
		}
	})
}
