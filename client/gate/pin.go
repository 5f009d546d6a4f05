package gate

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"

	"vpnd/pkg/fault"
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo, by which a server
// is known again.
type Pin [sha256.Size]byte

const pinPrefix = "sha256/"

// ReasonPinChanged marks the error of a server that is not the one that was pinned.
const ReasonPinChanged = "pin_changed"

// ParsePin reads "sha256/" and 44 characters of base64.
func ParsePin(s string) (Pin, error) {
	rest, ok := strings.CutPrefix(s, pinPrefix)
	b, err := base64.StdEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(b) != sha256.Size || base64.StdEncoding.EncodeToString(b) != rest {
		return Pin{}, fault.InvalidField("--pin", "%q is not a pin", s).
			WithHint("a pin is sha256/ and 44 characters of base64; the server's operator reads it with: vpnctl status")
	}
	return Pin(b), nil
}

// PinOf gives the pin of a certificate.
func PinOf(c *x509.Certificate) Pin { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// String is the form that ParsePin reads.
func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

// TLS is the configuration of a connection to the server with this pin, and to
// no other: who signed the certificate, its names and dates do not count.
func (p Pin) TLS() *tls.Config {
	return tlsConfig(func(got Pin) error {
		if subtle.ConstantTimeCompare(got[:], p[:]) == 1 {
			return nil
		}
		return fault.New(fault.Denied, "THE SERVER IS NOT THE ONE YOU SIGNED IN TO: its pin is %s, expected was %s. "+
			"Somebody may be listening in. Nothing was sent", got, p).WithReason(ReasonPinChanged).
			WithHint("ask the operator for the pin; if it did change, sign in with: vpn login URL --pin PIN")
	})
}

func tlsConfig(check func(Pin) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The pin replaces the chain of trust. VerifyConnection runs on every
		// handshake, resumed ones included, before anything is sent.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return fault.New(fault.Denied, "the server shows no certificate")
			}
			return check(PinOf(s.PeerCertificates[0]))
		},
	}
}

// errSeen ends a handshake that was only made to see the pin.
var errSeen = errors.New("pin seen")

// FetchPin asks a server for its pin. Nothing else is exchanged.
func FetchPin(ctx context.Context, a Address, r *Resolver, mark uint32) (Pin, error) {
	conn, err := DialAround(ctx, a, r, mark)
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return Pin{}, f
	}
	if err != nil {
		return Pin{}, unreachable(a, err)
	}
	defer conn.Close()
	var pin Pin
	cfg := tlsConfig(func(got Pin) error {
		pin = got
		return errSeen
	})
	cfg.ServerName = a.Host
	err = tls.Client(conn, cfg).HandshakeContext(ctx)
	if errors.Is(err, errSeen) {
		return pin, nil
	}
	return Pin{}, fault.Wrap(err, fault.Unavailable, "%s does not speak TLS 1.3", a).
		WithHint("check the address and the port; the client API's port is usually %d", DefaultPort)
}

func unreachable(a Address, err error) *fault.Error {
	return fault.Wrap(err, fault.Unavailable, "%s is not reachable", a).
		WithHint("check the address, and that this machine has a network")
}
