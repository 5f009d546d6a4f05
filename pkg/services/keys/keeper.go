package keys

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/events"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
)

// retry is how long Run waits after a bootstrap that failed.
const retry = time.Second

// Config says where the keys are and whom the certificate is for.
type Config struct {
	Dir      string // own folder, 0700
	Endpoint string // host name or address of the server; may be empty
}

// Deps are what a Keeper uses. All may be left out.
type Deps struct {
	Log     *slog.Logger
	Publish func(events.Event)
	Now     func() time.Time
}

// Keeper holds the keys.
type Keeper struct {
	cfg     Config
	dir     folder
	log     *slog.Logger
	publish func(events.Event)
	now     func() time.Time

	ring    atomic.Pointer[ring]   // nil until every key is there
	problem atomic.Pointer[string] // why there is no ring

	mu    sync.Mutex        // one bootstrap at a time; guards found
	found map[string]string // file → made or replaced, by this process
}

// ring is every key. It never changes once it is made.
type ring struct {
	token  key
	login  []key // best first
	tls    key
	chain  [][]byte
	pin    string
	status []keysapi.KeyStatus
}

// New prepares a Keeper. Bootstrap or Run reads the keys.
func New(cfg Config, deps Deps) (*Keeper, error) {
	if cfg.Dir == "" {
		return nil, errors.New("keys: no state folder")
	}
	k := &Keeper{
		cfg: cfg, dir: folder(cfg.Dir), log: deps.Log, publish: deps.Publish, now: deps.Now,
		found: map[string]string{},
	}
	k.explain("the keys are being read")
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	if k.publish == nil {
		k.publish = func(events.Event) {}
	}
	if k.now == nil {
		k.now = time.Now
	}
	return k, nil
}

// Run bootstraps until it succeeds, so that a full disk that has room again
// needs nobody's help, and then waits for ctx.
func (k *Keeper) Run(ctx context.Context) error {
	for k.ring.Load() == nil {
		if err := k.Bootstrap(ctx); err != nil && ctx.Err() == nil {
			k.log.Error("keys.failed", "err", err)
		}
		if k.ring.Load() != nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// Ready is nil once every key is there.
func (k *Keeper) Ready() error {
	if k.ring.Load() != nil {
		return nil
	}
	return errors.New(*k.problem.Load())
}

func (k *Keeper) explain(problem string) { k.problem.Store(&problem) }

// loaded gives the keys, or says that there are none yet.
func (k *Keeper) loaded() (*ring, error) {
	if r := k.ring.Load(); r != nil {
		return r, nil
	}
	return nil, fault.New(fault.Unavailable, "the keys are not ready").
		WithReason("keys_not_ready").WithHint("'vpnctl service get keys' tells why").WithRetryAfter(retry)
}

// Bootstrap reads every key and makes those that are missing or broken. When
// it has succeeded it does nothing more.
func (k *Keeper) Bootstrap(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring.Load() != nil {
		return nil
	}
	r, err := k.bootstrap(ctx)
	if err != nil {
		k.explain(err.Error())
		return err
	}
	k.ring.Store(r)
	k.log.Info("keys.ready", "pin", r.pin, "token_kid", r.token.kid)
	return nil
}

func (k *Keeper) bootstrap(ctx context.Context) (*ring, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	unlock, err := k.dir.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := k.dir.removeLeftovers(); err != nil {
		return nil, fmt.Errorf("remove leftovers of an interrupted write: %w", err)
	}
	r := &ring{}
	for _, s := range slots() {
		got, err := k.settle(s)
		if err != nil {
			return nil, fmt.Errorf("key file %s: %w", s.file, err)
		}
		switch s.kind {
		case "token":
			r.token = got
		case "login":
			r.login = append(r.login, got)
		case "tls":
			r.tls = got
		}
		state := "valid"
		if f := k.found[s.file]; f != "" {
			state = f
		}
		r.status = append(r.status, keysapi.KeyStatus{
			Name: s.file, Kind: s.kind, KID: got.kid, State: state, CreatedAt: got.createdAt,
		})
	}
	r.pin = pinOf(r.tls.public)
	der, err := k.settleCertificate(r.tls)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s: %w", certFile, err)
	}
	r.chain = [][]byte{der}
	return r, nil
}

// settle gives the key of a slot: the one on disk if it is valid, else a new one.
func (k *Keeper) settle(s slot) (key, error) {
	state := "made"
	data, tightened, err := k.dir.read(s.file)
	if tightened {
		k.log.Warn("keys.mode_tightened", "file", s.file)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil && !errors.Is(err, errBroken):
		return key{}, err // it may be sound: not ours to replace
	default:
		if err == nil {
			var got key
			if got, err = parseKeyFile(data, s); err == nil {
				return got, nil
			}
			if errors.Is(err, errNewer) {
				return key{}, err
			}
		}
		state = "replaced"
		aside, asideErr := k.dir.setAside(s.file, k.now())
		if asideErr != nil {
			return key{}, fmt.Errorf("set the broken file aside: %w", asideErr)
		}
		k.found[s.file] = state // even if making the new one fails and is tried again
		k.log.Error("keys.broken", "file", s.file, "err", err, "kept_as", aside)
	}
	if k.found[s.file] == "" {
		k.found[s.file] = state
	}
	return k.makeKey(s, k.found[s.file])
}

func (k *Keeper) makeKey(s slot, state string) (key, error) {
	secret, err := s.scheme.generate()
	if err != nil {
		return key{}, err
	}
	made, file, err := encodeKeyFile(s, secret, k.now())
	if err != nil {
		return key{}, err
	}
	if err := k.dir.write(s.file, file); err != nil {
		return key{}, err
	}
	event := events.Event{
		Type: "keys.made", Message: "key " + s.file + " was missing and has been made",
		Data: map[string]string{"file": s.file, "kid": made.kid},
	}
	if state == "replaced" {
		event.Type = "keys.replaced"
		event.Message = "key " + s.file + " was broken and has been replaced"
		if s.kind == "tls" {
			event.Message += "; clients that pinned the old one must be told the new pin"
		}
	}
	k.log.Info(event.Type, "file", s.file, "kid", made.kid)
	k.publish(event)
	return made, nil
}

// settleCertificate gives the certificate on disk if it fits, else a new one
// of the same key. A certificate holds nothing that could be lost.
func (k *Keeper) settleCertificate(tls key) ([]byte, error) {
	data, _, err := k.dir.read(certFile)
	why := "missing"
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil && !errors.Is(err, errBroken):
		return nil, err
	default:
		if err == nil {
			c, perr := parseCertificate(data)
			if perr == nil && fits(c, tls.public, k.cfg.Endpoint, k.now()) {
				return c.Raw, nil
			}
			if perr == nil {
				why = "outdated"
				break
			}
		}
		why = "broken"
		if _, err := k.dir.setAside(certFile, k.now()); err != nil {
			return nil, fmt.Errorf("set the broken file aside: %w", err)
		}
	}
	der, err := makeCertificate(tls.private.(*ecdsa.PrivateKey), k.cfg.Endpoint, k.now())
	if err != nil {
		return nil, err
	}
	if err := k.dir.write(certFile, encodeCertificate(der)); err != nil {
		return nil, err
	}
	k.log.Info("certificate.made", "was", why)
	return der, nil
}
