package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"vpnd/pkg/secret"
)

func TestNothingPrintsASecret(t *testing.T) {
	const inside = "hunter2hunter2"
	s := secret.New(inside)
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "password", s, "in", struct{ P secret.Text }{s})
	data, err := json.Marshal(map[string]any{"p": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{
		s.String(), fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s),
		fmt.Sprintf("%v %+v", struct{ P secret.Text }{s}, []secret.Text{s}), logged.String(), string(data),
	} {
		if strings.Contains(out, inside) || strings.Contains(out, fmt.Sprintf("%x", inside)) {
			t.Errorf("printed: %s", out)
		}
	}
	if s.Reveal() != inside || !s.Equal(secret.New(inside)) || s.Equal(secret.New("other")) || s.Empty() || s.Len() != len(inside) {
		t.Error("the content is not kept")
	}
}
