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
	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

const (
	// maxToken bounds what is parsed, in bytes. Ours are about 500.
	maxToken = 4096
	// remembered bounds the tokens whose signature is not checked twice.
	remembered = 16384
	// refetchEvery bounds how often an unknown key id makes us ask keys: a
	// stranger can send as many as they like.
	refetchEvery = time.Second
	// leeway forgives small clock differences between restarts of one host.
	leeway = 2 * time.Second
)

// verifier checks access tokens with public keys only.
type verifier struct {
	conn *rpc.Conn

	mu      sync.RWMutex
	issuer  string
	keys    map[string]ed25519.PublicKey
	fetched time.Time
	known   map[[32]byte]verified // signatures that were checked already
}

type verified struct {
	who     client.Identity
	expires time.Time
}

func newVerifier(conn *rpc.Conn) *verifier {
	return &verifier{conn: conn, known: map[[32]byte]verified{}}
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
	if err != nil {
		return err
	}
	fresh := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		if k.Algorithm == "EdDSA" && len(k.PublicKey) == ed25519.PublicKeySize {
			fresh[k.KID] = ed25519.PublicKey(k.PublicKey)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for kid, k := range v.keys {
		if !k.Equal(fresh[kid]) {
			clear(v.known)
		}
	}
	v.keys, v.issuer, v.fetched = fresh, set.Issuer, time.Now()
	return nil
}

type claims struct {
	jwt.RegisteredClaims
	DeviceID string `json:"device_id"`
}

func refusal(reason, message string) error {
	return fault.New(fault.Unauthenticated, "%s", message).WithReason(reason)
}

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
			return client.Identity{}, refusal("expired", "the access token has expired")
		}
		return seen.who, nil
	}
	who, expires, err := v.parse(ctx, token)
	if err != nil {
		return client.Identity{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.known) >= remembered {
		clear(v.known) // rare, and only costs signatures
	}
	v.known[sum] = verified{who, expires}
	return who, nil
}

func cutBearer(header string) (string, bool) {
	scheme, token, ok := strings.Cut(header, " ")
	return token, ok && strings.EqualFold(scheme, "Bearer") && token != ""
}

func (v *verifier) parse(ctx context.Context, token string) (client.Identity, time.Time, error) {
	v.mu.RLock()
	issuer := v.issuer
	v.mu.RUnlock()
	var c claims
	var down error
	_, err := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithIssuer(issuer), jwt.WithAudience("vpnd"),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway),
	).ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, err := v.key(ctx, kid)
		down = err
		if err != nil {
			return nil, err
		}
		return key, nil
	})
	switch {
	case errors.Is(down, fault.Unavailable):
		return client.Identity{}, time.Time{}, down
	case errors.Is(err, jwt.ErrTokenExpired):
		return client.Identity{}, time.Time{}, refusal("expired", "the access token has expired")
	case err != nil || c.Subject == "" || c.DeviceID == "":
		return client.Identity{}, time.Time{}, refusal("invalid_token", "the access token is not valid")
	}
	return identity(c.Subject, c.DeviceID), c.ExpiresAt.Time, nil
}

// key gives the public key with that id, asking keys again when it is new.
func (v *verifier) key(ctx context.Context, kid string) (ed25519.PublicKey, error) {
	v.mu.RLock()
	k, ok := v.keys[kid]
	stale, none := time.Since(v.fetched) > refetchEvery, len(v.keys) == 0
	v.mu.RUnlock()
	if ok {
		return k, nil
	}
	if stale {
		v.mu.Lock()
		v.fetched = time.Now() // one asks, the others wait for the next second
		v.mu.Unlock()
		if err := v.refresh(ctx); err != nil && none {
			return nil, fault.Wrap(err, fault.Unavailable, "access tokens cannot be checked yet").WithRetryAfter(time.Second)
		}
		v.mu.RLock()
		k, ok = v.keys[kid]
		v.mu.RUnlock()
		if ok {
			return k, nil
		}
	}
	return nil, errors.New("unknown key id")
}
