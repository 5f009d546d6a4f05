package gateway

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

// FuzzAuthorization feeds the header as a stranger sends it. Nothing but a token
// that our key has signed is ever accepted, and what is refused is refused in
// the words of the API.
func FuzzAuthorization(f *testing.F) {
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize)))
	token := func(kid any, change func(jwt.MapClaims)) string {
		c := jwt.MapClaims{"iss": "vpnd", "aud": "vpnd", "sub": "usr_1", "device_id": "dev_1", "exp": 1 << 40}
		if change != nil {
			change(c)
		}
		t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
		t.Header["kid"] = kid
		s, err := t.SignedString(private)
		if err != nil {
			f.Fatal(err)
		}
		return s
	}
	v := newVerifier(rpc.DialUnix("keys", "/nowhere/keys.sock", rpc.Options{Patience: -1}))
	v.keys, v.issuer = map[string]ed25519.PublicKey{"k": private.Public().(ed25519.PublicKey)}, "vpnd"
	v.asked = time.Now().Add(time.Hour) // nobody is to be asked

	good := token("k", nil)
	for _, seed := range []string{
		"", "Bearer", "Bearer ", "Bearer x", "Basic eA==", "Bearer " + good, "bearer " + good, "Bearer " + good + "=", "Bearer " + good[:len(good)-1],
		"Bearer " + token("other", nil), "Bearer " + token(5, nil), "Bearer " + token(nil, nil), "Bearer ..", "Bearer a.b.c",
		"Bearer " + token("k", func(c jwt.MapClaims) { c["exp"] = "never" }),
		"Bearer " + token("k", func(c jwt.MapClaims) { c["exp"] = -1 }),
		"Bearer " + token("k", func(c jwt.MapClaims) { c["aud"] = []any{"vpnd", 1} }),
		"Bearer " + token("k", func(c jwt.MapClaims) { c["sub"] = nil }),
		"Bearer eyJhbGciOiJub25lIiwia2lkIjoiayJ9.eyJzdWIiOiJ1c3JfMSJ9.",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		who, err := v.verify(t.Context(), header)
		switch {
		case err == nil:
			if who != (client.Identity{UserID: "usr_1", DeviceID: "dev_1"}) {
				t.Errorf("%q speaks for %+v", header, who)
			}
		case !errors.Is(err, fault.Unauthenticated) || fault.ReasonOf(err) == "":
			t.Errorf("%q: %v", header, err)
		}
		if (header == "Bearer "+good) != (err == nil) && !strings.EqualFold(header[:min(7, len(header))], "bearer ") {
			t.Errorf("%q: %v", header, err)
		}
	})
}
