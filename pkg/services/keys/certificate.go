package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"time"
)

const (
	// certLifetime is long because nobody checks it: clients pin the key.
	certLifetime = 10 * 365 * 24 * time.Hour

	// certRenewal before its end the certificate is made anew, with the same key.
	certRenewal = 30 * 24 * time.Hour

	// certName is in every certificate.
	certName = "vpnd"
)

// makeCertificate signs a certificate of the key for these names, with itself.
func makeCertificate(k *ecdsa.PrivateKey, endpoint string, now time.Time) (der []byte, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: certName},
		NotBefore:             now.Add(-24 * time.Hour), // clocks differ
		NotAfter:              now.Add(certLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{certName},
	}
	if addr, err := netip.ParseAddr(endpoint); err == nil {
		t.IPAddresses = append(t.IPAddresses, addr.Unmap().WithZone("").AsSlice())
	} else if endpoint != "" && endpoint != certName {
		t.DNSNames = append(t.DNSNames, endpoint)
	}
	return x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
}

// parseCertificate reads the one certificate of a PEM file.
func parseCertificate(data []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// fits tells whether the certificate is still the one to show.
func fits(c *x509.Certificate, spki []byte, endpoint string, now time.Time) bool {
	if !bytes.Equal(c.RawSubjectPublicKeyInfo, spki) || now.After(c.NotAfter.Add(-certRenewal)) || now.Before(c.NotBefore) {
		return false
	}
	if !slices.Contains(c.DNSNames, certName) {
		return false
	}
	addr, err := netip.ParseAddr(endpoint)
	if err != nil {
		return endpoint == "" || slices.Contains(c.DNSNames, endpoint)
	}
	for _, ip := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(ip); ok && a.Unmap() == addr.Unmap().WithZone("") {
			return true
		}
	}
	return false
}

// pinOf is what clients compare: it changes with the key only.
func pinOf(spki []byte) string {
	h := sha256.Sum256(spki)
	return "sha256/" + base64.StdEncoding.EncodeToString(h[:])
}
