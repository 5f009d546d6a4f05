package rpc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
)

// Caller is who is on the other end of a connection.
type Caller struct {
	Name   string // sibling service or local account; empty for the internet
	Access Access // what they may do on this socket
	UID    uint32 // of the peer process, where Local
	PID    int32  // of the peer process, where Local
	Local  bool   // reached us over a Unix socket
	Remote string // network address, where not Local
}

type callerKey struct{}
type requestIDKey struct{}

// CallerFrom gives the caller of the operation that ctx belongs to.
func CallerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// WithCaller sets the caller, for guards and for tests.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// RequestID names the call in logs of every service it passes through.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// WithRequestID sets the id that calls made with ctx carry.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// NewRequestID makes a fresh id: 12 hexadecimal digits.
func NewRequestID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return hex.EncodeToString(b[:])
}

// cleanRequestID keeps an id that came from outside only if it is harmless in
// logs and headers.
func cleanRequestID(s string) string {
	if len(s) == 0 || len(s) > 64 {
		return ""
	}
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return ""
		}
	}
	return s
}
