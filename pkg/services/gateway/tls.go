package gateway

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"vpnd/pkg/api/keys"
	"vpnd/pkg/rpc"
)

// certificate is the TLS certificate, whose private key stays in keys: every
// handshake asks for one signature.
type certificate struct {
	conn *rpc.Conn
	cur  atomic.Pointer[tls.Certificate]
}

func newCertificate(conn *rpc.Conn) *certificate { return &certificate{conn: conn} }

func (c *certificate) ready() error {
	if c.cur.Load() == nil {
		return errors.New("the TLS certificate is not known yet")
	}
	return nil
}

func (c *certificate) refresh(ctx context.Context) error {
	res, err := keys.TLSCertificate.Call(ctx, c.conn, nil)
	if err != nil {
		return err
	}
	if len(res.Chain) == 0 {
		return errors.New("keys gave no certificate")
	}
	if old := c.cur.Load(); old != nil && slices.EqualFunc(old.Certificate, res.Chain, slices.Equal) {
		return nil
	}
	leaf, err := x509.ParseCertificate(res.Chain[0])
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.cur.Store(&tls.Certificate{Certificate: res.Chain, Leaf: leaf, PrivateKey: &remoteSigner{c.conn, leaf.PublicKey},
		SupportedSignatureAlgorithms: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}})
	return nil
}

// get waits a little for a certificate that is still on its way, so that
// clients of a server that is starting wait instead of failing.
func (c *certificate) get(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := c.cur.Load(); cert != nil {
		return cert, nil
	}
	ctx, cancel := context.WithTimeout(h.Context(), 5*time.Second)
	defer cancel()
	for {
		if cert := c.cur.Load(); cert != nil {
			return cert, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("no certificate yet")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// remoteSigner is a crypto.Signer whose key is in another process.
type remoteSigner struct {
	conn   *rpc.Conn
	public crypto.PublicKey
}

func (s *remoteSigner) Public() crypto.PublicKey { return s.public }

func (s *remoteSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("cannot sign a %v digest", opts.HashFunc())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req := &keys.SignTLSRequest{}
	req.Body.Digest = digest
	res, err := keys.SignTLS.Call(ctx, s.conn, req)
	if err != nil {
		return nil, err
	}
	return res.Signature, nil
}
