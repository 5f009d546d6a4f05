package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

const (
	// audience is what our access tokens are for.
	audience = "vpnd"
	// maxToken bounds what is parsed, in bytes. Ours are about 500.
	maxToken = 4096
	// remembered bounds the tokens whose signature is not checked twice.
	remembered = 16384
	// refetchEvery bounds how often an unknown key id makes us ask keys: a
	// stranger can send as many as they like.
	refetchEvery = time.Second
	// refetchWait bounds how long the bearer of an unknown key id waits for that.
	refetchWait = 5 * time.Second
	// leeway forgives small steps of the clock of the one host that both signs
	// and verifies.
	leeway = 2 * time.Second
)

// verifier checks access tokens with public keys only.
type verifier struct {
	conn *rpc.Conn

	asking chan struct{} // holds one token: one asks keys, the others wait for what it hears
	mu     sync.RWMutex
	issuer string
	keys   map[string]ed25519.PublicKey
	asked  time.Time              // when keys was asked last because of an unknown id
	failed error                  // why the latest question was not answered
	known  map[[32]byte]knownGood // tokens whose signature was checked already
}

type knownGood struct {
	who     client.Identity
	expires time.Time
}

func newVerifier(conn *rpc.Conn) *verifier {
	v := &verifier{conn: conn, asking: make(chan struct{}, 1), known: map[[32]byte]knownGood{}}
	v.asking <- struct{}{}
	return v
}

func (v *verifier) ready() error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if len(v.keys) == 0 {
		return errors.New("the keys of access tokens are not known yet")
	}
	return nil
}

// refresh asks keys for the verifiers. Tokens of keys that are gone are
// forgotten with them.
func (v *verifier) refresh(ctx context.Context) error {
	set, err := keys.Verifiers.Call(ctx, v.conn, nil)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed = err; err != nil {
		return err
	}
	fresh := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		if k.KID != "" && k.Algorithm == "EdDSA" && len(k.PublicKey) == ed25519.PublicKeySize {
			fresh[k.KID] = ed25519.PublicKey(k.PublicKey)
		}
	}
	for kid, k := range v.keys {
		if !k.Equal(fresh[kid]) {
			clear(v.known)
		}
	}
	v.keys, v.issuer = fresh, set.Issuer
	return nil
}

type claims struct {
	jwt.RegisteredClaims
	DeviceID id.Device `json:"device_id"`
}

func refusal(reason, message string) error {
	return fault.New(fault.Unauthenticated, "%s", message).WithReason(reason)
}

func expired() error { return refusal("expired", "the access token has expired") }

// verify gives whom the Authorization header speaks for.
func (v *verifier) verify(ctx context.Context, header string) (client.Identity, error) {
	token, ok := cutBearer(header)
	switch {
	case header == "":
		return client.Identity{}, refusal("missing_token", "an access token is needed")
	case !ok || len(token) > maxToken:
		return client.Identity{}, refusal("invalid_token", "the Authorization header holds no access token")
	}
	sum := sha256.Sum256([]byte(token))
	v.mu.RLock()
	seen, ok := v.known[sum]
	v.mu.RUnlock()
	if ok {
		if time.Now().After(seen.expires) {
			return client.Identity{}, expired()
		}
		return seen.who, nil
	}
	return v.check(ctx, token, sum)
}

func cutBearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

// check parses a token and remembers it if it is good.
func (v *verifier) check(ctx context.Context, token string, sum [32]byte) (client.Identity, error) {
	var c claims
	var key ed25519.PublicKey
	var kid string
	var unsure error
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithAudience(audience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
	).ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ = t.Header["kid"].(string)
		key, unsure = v.key(ctx, kid)
		if unsure != nil {
			return nil, unsure
		}
		if key == nil {
			return nil, errors.New("unknown key id")
		}
		return key, nil
	})
	switch {
	case unsure != nil:
		return client.Identity{}, unsure
	case errors.Is(err, jwt.ErrTokenExpired): // the signature was good
		return client.Identity{}, expired()
	case err != nil || c.Subject == "" || c.DeviceID == "":
		return client.Identity{}, refusal("invalid_token", "the access token is not valid")
	}
	who := client.Identity{UserID: id.User(c.Subject), DeviceID: c.DeviceID}
	v.mu.Lock()
	defer v.mu.Unlock()
	if c.Issuer != v.issuer || !key.Equal(v.keys[kid]) { // it may have gone meanwhile
		return client.Identity{}, refusal("invalid_token", "the access token is not valid")
	}
	if len(v.known) >= remembered {
		clear(v.known) // rare, and only costs signatures
	}
	v.known[sum] = knownGood{who, c.ExpiresAt.Time.Add(leeway)}
	return who, nil
}

// key gives the public key with that id, asking keys when it is new; nil when
// there is none. An error means that nobody can tell now.
func (v *verifier) key(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	if k := v.have(kid); k != nil {
		return k, nil
	}
	select {
	case <-v.asking:
		defer func() { v.asking <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if k := v.have(kid); k != nil { // somebody has just asked
		return k, nil
	}
	v.mu.Lock()
	due := time.Since(v.asked) >= refetchEvery
	if due {
		v.asked = time.Now()
	}
	v.mu.Unlock()
	if due {
		// The answer is for everybody who waits, whether or not this caller does.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refetchWait)
		defer cancel()
		_ = v.refresh(ctx) // remembered in failed
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if k := v.keys[kid]; k != nil || v.failed == nil && len(v.keys) > 0 {
		return k, nil
	}
	return nil, fault.Wrap(v.failed, fault.Unavailable, "access tokens cannot be checked now").WithReason("keys_not_ready").
		WithRetryAfter(time.Second)
}

func (v *verifier) have(kid string) ed25519.PublicKey {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.keys[kid]
}
