package gateway_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vpnd/pkg/fault"
)

func TestBearer(t *testing.T) {
	w := running(t)
	if a := w.call("POST", "/vpn/verify/id", w.token(), ""); a.status != 200 || a.body != `{"user_id":"usr_1","device_id":"dev_1"}`+"\n" {
		t.Errorf("good token: %d %s", a.status, a.body)
	}
	set := func(k string, v any) func(jwt.MapClaims) { return func(c jwt.MapClaims) { c[k] = v } }
	drop := func(k string) func(jwt.MapClaims) { return func(c jwt.MapClaims) { delete(c, k) } }
	_, other, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	pub := w.signer.Public().(ed25519.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(pub)
	must(t, err)
	good := w.token()
	parts := strings.Split(good, ".")
	for name, tc := range map[string]struct{ token, reason string }{
		"none":              {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, goodClaims()), "invalid_token"},
		"HS256, public key": {sign(t, jwt.SigningMethodHS256, []byte(pub), kid, goodClaims()), "invalid_token"},
		"HS256, PEM of it":  {sign(t, jwt.SigningMethodHS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), kid, goodClaims()), "invalid_token"},
		"another key":       {sign(t, jwt.SigningMethodEdDSA, other, kid, goodClaims()), "invalid_token"},
		"unknown kid":       {sign(t, jwt.SigningMethodEdDSA, w.signer, "key-9", goodClaims()), "invalid_token"},
		"no kid":            {sign(t, jwt.SigningMethodEdDSA, w.signer, nil, goodClaims()), "invalid_token"},
		"kid is a number":   {sign(t, jwt.SigningMethodEdDSA, w.signer, 1, goodClaims()), "invalid_token"},
		"expired":           {w.token(set("exp", time.Now().Add(-3*time.Second).Unix())), "expired"},
		"never expires":     {w.token(drop("exp")), "invalid_token"},
		"not yet":           {w.token(set("nbf", time.Now().Add(time.Minute).Unix())), "invalid_token"},
		"from the future":   {w.token(set("iat", time.Now().Add(time.Minute).Unix())), "invalid_token"},
		"wrong audience":    {w.token(set("aud", "else")), "invalid_token"},
		"no audience":       {w.token(drop("aud")), "invalid_token"},
		"wrong issuer":      {w.token(set("iss", "else")), "invalid_token"},
		"no issuer":         {w.token(drop("iss")), "invalid_token"},
		"no subject":        {w.token(drop("sub")), "invalid_token"},
		"no device":         {w.token(drop("device_id")), "invalid_token"},
		"device is a list":  {w.token(set("device_id", []string{"dev_1"})), "invalid_token"},
		"garbage":           {"garbage", "invalid_token"},
		"dots":              {"..", "invalid_token"},
		"cut":               {good[:len(good)-1], "invalid_token"},
		"no signature":      {parts[0] + "." + parts[1] + ".", "invalid_token"},
		"claims of another": {parts[0] + "." + strings.Split(w.token(set("sub", "usr_2")), ".")[1] + "." + parts[2], "invalid_token"},
		"too long":          {strings.Repeat("a", 5000), "invalid_token"},
		"missing":           {"", "missing_token"},
	} {
		for _, path := range []string{"/vpn/verify/id", "/vpn/initiate", "/session/heartbeat", "/session/close"} {
			wantProblem(t, name+" "+path, w.call("POST", path, tc.token, ""), 401, fault.Unauthenticated, tc.reason)
		}
	}
	for _, header := range []string{"Basic dXNlcjpwYXNz", "Bearer", "Bearer ", good, "bearer\t" + good} {
		req, err := http.NewRequest("POST", "https://"+w.addr+"/vpn/verify/id", nil)
		must(t, err)
		req.Header.Set("Authorization", header)
		res, err := w.http.Do(req)
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode != 401 {
			t.Errorf("%q: %d", header, res.StatusCode)
		}
	}
	if n := w.counted("sessions"); n != 0 {
		t.Errorf("sessions was asked %d times", n)
	}
}

func TestRememberedTokensExpire(t *testing.T) {
	w := running(t)
	token := w.token(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Second).Unix() }) // inside the leeway
	if a := w.call("POST", "/vpn/verify/id", token, ""); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	eventually(t, "its end", func() bool { return w.call("POST", "/vpn/verify/id", token, "").status == 401 })
	wantProblem(t, "expired", w.call("POST", "/vpn/verify/id", token, ""), 401, fault.Unauthenticated, "expired")
}

func TestAKeyThatIsGoneVerifiesNothing(t *testing.T) {
	w := running(t)
	token := w.token()
	if a := w.call("POST", "/vpn/verify/id", token, ""); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	w.mu.Lock()
	w.tokens = map[string]ed25519.PublicKey{"key-2": pub}
	w.mu.Unlock()
	// A token of the new key makes the gateway ask.
	if a := w.call("POST", "/vpn/verify/id", sign(t, jwt.SigningMethodEdDSA, priv, "key-2", goodClaims()), ""); a.status != 200 {
		t.Errorf("new key: %d %s", a.status, a.body)
	}
	eventually(t, "the new keys", func() bool { return w.call("POST", "/vpn/verify/id", token, "").status == 401 })
}

func TestUnknownKeyIDsAskOnceASecond(t *testing.T) {
	w := running(t)
	before, start := w.counted("verifiers"), time.Now()
	forged := sign(t, jwt.SigningMethodEdDSA, w.signer, "forged", goodClaims())
	var all sync.WaitGroup
	sent := 0
	for time.Since(start) < 1500*time.Millisecond {
		for range 20 {
			all.Go(func() {
				if a := w.call("POST", "/vpn/verify/id", forged, ""); a.status != 401 {
					t.Errorf("got %d %s", a.status, a.body)
				}
			})
		}
		all.Wait()
		sent += 20
	}
	if n, most := w.counted("verifiers")-before, int(time.Since(start)/time.Second)+1; n > most || n < 1 {
		t.Errorf("%d questions for %d tokens, at most %d", n, sent, most)
	}

	// Those who come with a new key at once all wait for the one question.
	time.Sleep(1100 * time.Millisecond)
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	w.mu.Lock()
	w.tokens["key-2"] = pub
	w.mu.Unlock()
	before = w.counted("verifiers")
	token := sign(t, jwt.SigningMethodEdDSA, priv, "key-2", goodClaims())
	for range 30 {
		all.Go(func() {
			if a := w.call("POST", "/vpn/verify/id", token, ""); a.status != 200 {
				t.Errorf("got %d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if n := w.counted("verifiers") - before; n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestTokensWhileKeysIsDown(t *testing.T) {
	w := newWorld(t, 100)
	stop := w.startKeys()
	w.startSessions()
	w.ready()
	stop()
	if a := w.call("POST", "/vpn/verify/id", w.token(), ""); a.status != 200 {
		t.Errorf("known key: %d %s", a.status, a.body)
	}
	// Nobody can tell whether this one is good: the client must not throw it away.
	unknown := sign(t, jwt.SigningMethodEdDSA, w.signer, "key-2", goodClaims())
	wantProblem(t, "unknown key", w.call("POST", "/vpn/verify/id", unknown, ""), 503, fault.Unavailable, "keys_not_ready")
	wantProblem(t, "and again", w.call("POST", "/vpn/verify/id", unknown, ""), 503, fault.Unavailable, "keys_not_ready")
	w.mu.Lock()
	w.tokens["key-2"] = w.tokens[kid]
	w.mu.Unlock()
	w.startKeys()
	eventually(t, "recovery", func() bool { return w.call("POST", "/vpn/verify/id", unknown, "").status == 200 })
}
