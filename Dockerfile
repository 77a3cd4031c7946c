# The gateway alone: one static file and the example configs, run by a user that
# is not root and holds CAP_NET_ADMIN, nothing else.
#
#   docker build -t tungate .
#   docker run --cap-drop ALL --cap-add NET_ADMIN --device /dev/net/tun \
#     --sysctl net.ipv6.conf.all.disable_ipv6=0 tungate run -c /examples/echo.yaml
#
# The build needs a Go toolchain image and the modules. Both can be local: name
# the image by GO_IMAGE, and either vendor the modules (go mod vendor), as
# scripts/docker-test.sh does, or say where they are by GOPROXY. Neither builder
# of Docker is assumed: the classic one and BuildKit both do.
ARG GO_IMAGE=golang:1.26.8
FROM ${GO_IMAGE} AS build
ARG GOPROXY
ARG GOFLAGS
ARG VERSION=devel
WORKDIR /src
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/gateway ./cmd/gateway
# A user other than root gets from --cap-add only what the file itself grants.
RUN go run ./deploy/filecap /out/gateway && cp -r examples /out/

FROM scratch
# As a folder: of a single file the classic builder would lose the capability.
COPY --from=build /out /
USER 65532:65532
ENTRYPOINT ["/gateway"]
CMD ["--help"]
