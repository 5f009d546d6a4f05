package keys_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"vpnd/pkg/api/events"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/services/keys"
)

type world struct {
	dir    string
	now    time.Time
	events []events.Event
}

func newWorld(t *testing.T) *world {
	return &world{dir: t.TempDir(), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}

func (w *world) keeper(t *testing.T, endpoint string) *keys.Keeper {
	t.Helper()
	k, err := keys.New(keys.Config{Dir: w.dir, Endpoint: endpoint}, keys.Deps{
		Publish: func(e events.Event) { w.events = append(w.events, e) },
		Now:     func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (w *world) start(t *testing.T, endpoint string) *keys.Keeper {
	t.Helper()
	k := w.keeper(t, endpoint)
	if err := k.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

// face is everything that others see of the keys.
type face struct {
	Login []string
	Token []string
	Pin   string
	Cert  []byte
}

func faceOf(t *testing.T, k *keys.Keeper) face {
	t.Helper()
	var f face
	login, err := k.LoginKeys(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range login.Keys {
		f.Login = append(f.Login, l.KID+" "+l.PublicKey)
	}
	verifiers, err := k.Verifiers(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verifiers.Keys {
		f.Token = append(f.Token, v.KID+" "+base64.StdEncoding.EncodeToString(v.PublicKey))
	}
	cert, err := k.Certificate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	f.Pin, f.Cert = cert.Pin, cert.Chain[0]
	return f
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", e.Name(), info.Mode().Perm())
		}
		names = append(names, e.Name())
	}
	return names
}

var allFiles = []string{"login-mlkem768-x25519.json", "login-x25519.json", "tls.crt", "tls.json", "token.json"}

func states(t *testing.T, k *keys.Keeper) map[string]string {
	t.Helper()
	s, err := k.Status(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range s.Keys {
		out[e.Name] = e.State
	}
	return out
}

func TestFirstStartMakesEveryKeyAndSecondStartChangesNothing(t *testing.T) {
	w := newWorld(t)
	first := w.keeper(t, "vpn.example.org")
	if first.Ready() == nil {
		t.Error("ready before there is a key")
	}
	if _, err := first.LoginKeys(t.Context(), nil); err == nil {
		t.Error("login keys before there is a key")
	}
	if err := first.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := first.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if diff := cmp.Diff(allFiles, files(t, w.dir)); diff != "" {
		t.Errorf("files (-want +got)\n%s", diff)
	}
	if len(w.events) != 4 {
		t.Errorf("%d events, want one for each key", len(w.events))
	}
	want := faceOf(t, first)
	before := map[string]os.FileInfo{}
	for _, f := range allFiles {
		before[f], _ = os.Stat(filepath.Join(w.dir, f))
	}

	w.now = w.now.Add(400 * 24 * time.Hour)
	w.events = nil
	second := w.start(t, "vpn.example.org")
	if diff := cmp.Diff(want, faceOf(t, second)); diff != "" {
		t.Errorf("second start (-first +second)\n%s", diff)
	}
	for _, f := range allFiles {
		after, err := os.Stat(filepath.Join(w.dir, f))
		if err != nil || !os.SameFile(before[f], after) || !after.ModTime().Equal(before[f].ModTime()) {
			t.Errorf("%s was touched (%v)", f, err)
		}
	}
	if len(w.events) != 0 {
		t.Errorf("events of the second start: %+v", w.events)
	}
	for name, s := range states(t, second) {
		if s != "valid" {
			t.Errorf("%s is %s", name, s)
		}
	}
}

func TestLoginKeysAreHybridFirst(t *testing.T) {
	k := newWorld(t).start(t, "")
	got, err := k.LoginKeys(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	type suite struct{ KEM, KDF, AEAD uint16 }
	var suites []suite
	for _, l := range got.Keys {
		suites = append(suites, suite{l.KEM, l.KDF, l.AEAD})
	}
	if diff := cmp.Diff([]suite{{0x647a, 1, 2}, {0x0020, 1, 2}}, suites); diff != "" {
		t.Error(diff)
	}
}

func TestBrokenFilesAreSetAsideAndOnlyTheirKeyIsReplaced(t *testing.T) {
	for name, damage := range map[string]func(path string, whole []byte) error{
		"empty":     func(p string, _ []byte) error { return os.WriteFile(p, nil, 0o600) },
		"truncated": func(p string, b []byte) error { return os.WriteFile(p, b[:len(b)/2], 0o600) },
		"bit rot": func(p string, b []byte) error {
			i := bytes.Index(b, []byte(`"private_key": "`)) + len(`"private_key": "`)
			b[i+10] ^= 1 // not among the bits that X25519 ignores
			return os.WriteFile(p, b, 0o600)
		},
		"huge":      func(p string, _ []byte) error { return os.WriteFile(p, make([]byte, 1<<20), 0o600) },
		"folder":    func(p string, _ []byte) error { _ = os.Remove(p); return os.Mkdir(p, 0o700) },
		"garbage":   func(p string, _ []byte) error { return os.WriteFile(p, []byte("\x00\xff{}"), 0o600) },
		"other key": func(p string, _ []byte) error { return os.WriteFile(p, []byte(`{"version":1,"kind":"x"}`), 0o600) },
	} {
		for _, file := range []string{"token.json", "login-mlkem768-x25519.json", "login-x25519.json", "tls.json"} {
			t.Run(name+"/"+file, func(t *testing.T) {
				w := newWorld(t)
				before := faceOf(t, w.start(t, ""))
				w.events = nil
				path := filepath.Join(w.dir, file)
				whole, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(path, whole); err != nil {
					t.Fatal(err)
				}
				k := w.start(t, "")
				after := faceOf(t, k)
				changed := map[string]bool{
					"token.json":                 !slices.Equal(before.Token, after.Token),
					"login-mlkem768-x25519.json": before.Login[0] != after.Login[0],
					"login-x25519.json":          before.Login[1] != after.Login[1],
					"tls.json":                   before.Pin != after.Pin,
				}
				for f, c := range changed {
					if c != (f == file) {
						t.Errorf("key of %s changed: %v", f, c)
					}
				}
				for f, s := range states(t, k) {
					if want := map[bool]string{true: "replaced", false: "valid"}[f == file]; s != want {
						t.Errorf("%s is %s, want %s", f, s, want)
					}
				}
				if len(w.events) != 1 || w.events[0].Type != "keys.replaced" {
					t.Errorf("events %+v", w.events)
				}
				aside, _ := filepath.Glob(path + ".broken-*")
				if len(aside) != 1 {
					t.Errorf("set aside: %v", aside)
				}
				if diff := cmp.Diff(after, faceOf(t, w.start(t, ""))); diff != "" {
					t.Errorf("the replacement did not last\n%s", diff)
				}
			})
		}
	}
}

func TestAFileOfANewerVersionIsNotReplaced(t *testing.T) {
	w := newWorld(t)
	w.start(t, "")
	path := filepath.Join(w.dir, "token.json")
	newer := []byte(`{"version":2,"ring":[]}`)
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	k := w.keeper(t, "")
	if err := k.Bootstrap(t.Context()); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got %v", err)
	}
	if err := k.Ready(); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("ready: %v", err)
	}
	if got, _ := os.ReadFile(path); !bytes.Equal(got, newer) {
		t.Error("the file was touched")
	}
}

func TestLooseModesAreTightened(t *testing.T) {
	w := newWorld(t)
	want := faceOf(t, w.start(t, ""))
	if err := os.Chmod(filepath.Join(w.dir, "token.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, faceOf(t, w.start(t, ""))); diff != "" {
		t.Error(diff)
	}
	files(t, w.dir)
}

// A process that is killed while it writes leaves a temporary file, whole or
// not, and either the old key or none.
func TestLeftoversOfAKilledWriteAreRemovedAndNeverUsed(t *testing.T) {
	w := newWorld(t)
	want := faceOf(t, w.start(t, ""))
	whole, err := os.ReadFile(filepath.Join(w.dir, "token.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i, content := range [][]byte{nil, whole[:20], whole} {
		name := ".tmp-token.json-000000000000000" + string(rune('0'+i))
		if err := os.WriteFile(filepath.Join(w.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stranger := filepath.Join(w.dir, "notes.tmp-1")
	if err := os.WriteFile(stranger, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, faceOf(t, w.start(t, ""))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(append([]string{allFiles[0], allFiles[1], "notes.tmp-1"}, allFiles[2:]...), files(t, w.dir)); diff != "" {
		t.Error(diff)
	}
}

func TestAnyMissingFileIsMade(t *testing.T) {
	for _, file := range allFiles {
		w := newWorld(t)
		before := faceOf(t, w.start(t, ""))
		if err := os.Remove(filepath.Join(w.dir, file)); err != nil {
			t.Fatal(err)
		}
		k := w.start(t, "")
		if file == "tls.crt" {
			if after := faceOf(t, k); after.Pin != before.Pin || bytes.Equal(after.Cert, before.Cert) {
				t.Error("without tls.crt a new certificate of the same key is due")
			}
			continue
		}
		if s := states(t, k)[file]; s != "made" {
			t.Errorf("%s is %s, want made", file, s)
		}
	}
}

func TestTheRunningServiceRecoversWhenTheFolderBecomesUsable(t *testing.T) {
	w := newWorld(t)
	w.dir = filepath.Join(w.dir, "later")
	k := w.keeper(t, "")
	if k.Bootstrap(t.Context()) == nil {
		t.Fatal("bootstrap without a folder succeeded")
	}
	if err := os.Mkdir(w.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	deadline := time.After(10 * time.Second)
	for k.Ready() != nil {
		select {
		case <-deadline:
			t.Fatal(k.Ready())
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	<-done
}

func TestProcessesThatStartTogetherAgree(t *testing.T) {
	dir := t.TempDir()
	faces := make([]face, 8)
	var wg sync.WaitGroup
	for i := range faces {
		wg.Go(func() {
			k, err := keys.New(keys.Config{Dir: dir}, keys.Deps{})
			if err == nil {
				err = k.Bootstrap(t.Context())
			}
			if err != nil {
				t.Error(err)
				return
			}
			faces[i] = faceOf(t, k)
		})
	}
	wg.Wait()
	for _, f := range faces[1:] {
		if diff := cmp.Diff(faces[0], f); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestCertificateFollowsTheEndpointAndThePinStays(t *testing.T) {
	w := newWorld(t)
	pins := map[string]bool{}
	var last []byte
	for _, endpoint := range []string{"", "vpn.example.org", "192.0.2.7", "2001:db8::7", "vpnd"} {
		f := faceOf(t, w.start(t, endpoint))
		pins[f.Pin] = true
		if endpoint != "vpnd" && bytes.Equal(f.Cert, last) {
			t.Errorf("%q: the certificate did not change", endpoint)
		}
		last = f.Cert
		c, err := x509.ParseCertificate(f.Cert)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		for _, name := range []string{"vpnd", endpoint} {
			if name == "" {
				continue
			}
			if _, err := c.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: w.now}); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		if c.NotAfter.Before(w.now.Add(9 * 365 * 24 * time.Hour)) {
			t.Errorf("valid until %s", c.NotAfter)
		}
		spki := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		if want := "sha256/" + base64.StdEncoding.EncodeToString(spki[:]); f.Pin != want {
			t.Errorf("pin %s, want %s", f.Pin, want)
		}
	}
	w.now = w.now.Add(10*365*24*time.Hour - time.Hour)
	f := faceOf(t, w.start(t, "vpnd"))
	pins[f.Pin] = true
	if bytes.Equal(f.Cert, last) {
		t.Error("the certificate was not renewed before its end")
	}
	if len(pins) != 1 {
		t.Errorf("pins %v, want one", pins)
	}
}

func TestABrokenCertificateIsSetAside(t *testing.T) {
	w := newWorld(t)
	pin := faceOf(t, w.start(t, "")).Pin
	other := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no")})
	if err := os.WriteFile(filepath.Join(w.dir, "tls.crt"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := faceOf(t, w.start(t, "")).Pin; got != pin {
		t.Errorf("pin %s, want %s", got, pin)
	}
	if aside, _ := filepath.Glob(filepath.Join(w.dir, "tls.crt.broken-*")); len(aside) != 1 {
		t.Errorf("set aside: %v", aside)
	}
}

func TestTokenStatesWhatItShould(t *testing.T) {
	w := newWorld(t)
	k := w.start(t, "vpnd")
	req := &keysapi.SignRequest{}
	req.Body.User, req.Body.Device, req.Body.TTL = "usr_a", "dev_b", 900
	signed, err := k.Sign(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	v, err := k.Verifiers(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	got := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(signed.Token, got, func(*jwt.Token) (any, error) {
		return ed25519.PublicKey(v.Keys[0].PublicKey), nil
	}, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithTimeFunc(func() time.Time { return w.now }), jwt.WithAudience("vpnd"), jwt.WithIssuer(v.Issuer))
	if err != nil {
		t.Fatal(err)
	}
	if token.Header["kid"] != v.Keys[0].KID {
		t.Errorf("kid %v, want %s", token.Header["kid"], v.Keys[0].KID)
	}
	jti, _ := got["jti"].(string)
	delete(got, "jti")
	at := float64(w.now.Unix())
	want := jwt.MapClaims{
		"iss": "vpnd", "aud": []any{"vpnd"}, "sub": "usr_a", "device_id": "dev_b",
		"iat": at, "nbf": at, "exp": at + 900,
	}
	if diff := cmp.Diff(want, got); diff != "" || len(jti) != 32 {
		t.Errorf("jti %q, claims (-want +got)\n%s", jti, diff)
	}
	if !signed.ExpiresAt.Equal(w.now.Add(15 * time.Minute)) {
		t.Errorf("expires %s", signed.ExpiresAt)
	}
	req.Body.Device = ""
	if _, err := k.Sign(t.Context(), req); err == nil {
		t.Error("signed a token without a device")
	}
	req.Body.User, req.Body.Device = "", "dev_b"
	if _, err := k.Sign(t.Context(), req); err == nil {
		t.Error("signed a token without a user")
	}
}

func TestTLSSignatureVerifiesAndOnlyDigestsAreSigned(t *testing.T) {
	k := newWorld(t).start(t, "")
	cert, err := k.Certificate(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(cert.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("handshake"))
	req := &keysapi.SignTLSRequest{}
	req.Body.Digest = digest[:]
	sig, err := k.SignTLS(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(c.PublicKey.(*ecdsa.PublicKey), digest[:], sig.Signature) {
		t.Error("the signature does not verify")
	}
	for _, n := range []int{0, 31, 33, 64} {
		req.Body.Digest = make([]byte, n)
		if _, err := k.SignTLS(t.Context(), req); err == nil {
			t.Errorf("%d bytes were signed", n)
		}
	}
}
