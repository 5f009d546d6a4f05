//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"

	"vpnd/pkg/passwd"
)

// helperArg makes this program one of the processes that floors need:
//
//	bench helper tls ADDR             answers every HTTPS request alike, until stdin ends
//	bench helper argon2 WORKERS TIME  hashes passwords and prints how many a second
const (
	helperArg   = "helper"
	helperReady = "ready\n"
)

// runHelper runs a helper, if args ask for one, and gives its exit status.
func runHelper(args []string) (status int, mine bool) {
	if len(args) == 0 || args[0] != helperArg {
		return 0, false
	}
	var err error
	switch {
	case len(args) == 3 && args[1] == "tls":
		err = serveEmpty(args[2])
	case len(args) == 4 && args[1] == "argon2":
		err = hashPasswords(args[2], args[3])
	default:
		err = fmt.Errorf("no such helper: %q", args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench helper:", err)
		return 1, true
	}
	return 0, true
}

func serveEmpty(addr string) error {
	cert, err := throwawayCertificate()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	answer := []byte(`{"status":"ok"}`)
	srv := &http.Server{
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1, like the API
		ErrorLog:     log.New(io.Discard, "", 0),                               // clients that hang up
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		}),
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = srv.Close()
	}()
	if _, err := io.WriteString(os.Stdout, helperReady); err != nil {
		return err
	}
	if err := srv.ServeTLS(l, "", ""); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// throwawayCertificate is of the kind that vpnd makes.
func throwawayCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// hashed is what the argon2 helper prints.
type hashed struct {
	Rate  float64 `json:"rate"`
	Times samples `json:"times"`
}

func hashPasswords(workers, duration string) error {
	n, err := strconv.Atoi(workers)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(duration)
	if err != nil {
		return err
	}
	p := passwd.Default()
	done, err := load(context.Background(), n, d, func(int, int) error {
		_, err := p.Hash(password)
		return err
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(hashed{done.rate, done.times})
}

// rawArgon2 runs the helper with so many workers for a time. It shares nothing
// with vpnd or the load but the function that it measures.
func rawArgon2(ctx context.Context, workers int, d time.Duration) (hashed, error) {
	self, err := os.Executable()
	if err != nil {
		return hashed{}, err
	}
	cmd := exec.CommandContext(ctx, self, helperArg, "argon2", strconv.Itoa(workers), d.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return hashed{}, fmt.Errorf("raw Argon2id: %w", err)
	}
	var h hashed
	return h, json.NewDecoder(bytes.NewReader(out)).Decode(&h)
}
