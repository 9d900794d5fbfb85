# Two images from scratch: the registry, and the example programs.
#
#   docker build -t werbenhu/registry:dev .
#   docker build -t werbenhu/registry-examples:dev --target examples .
#
# Where no base image can be pulled, .ci/image builds both from binaries
# compiled on the machine and the stages below that start FROM scratch.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION
RUN VERSION=$VERSION .ci/binaries /out

FROM scratch AS examples
COPY --from=build /out/webservice /out/client /out/gateway /
USER 65532:65532

FROM scratch AS registry
COPY --from=build /out/registry /registry
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build --chown=65532:65532 /out/tls /tls
USER 65532:65532
ENV REGISTRY_DATA_DIR=/data
VOLUME /data
# 7370 other nodes, 9800 clients.
EXPOSE 7370 9800
STOPSIGNAL SIGTERM
# Of a node; run the other commands with --no-healthcheck.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
  CMD ["/registry", "health", "-addr", "127.0.0.1:9800", "-timeout", "4s"]
ENTRYPOINT ["/registry"]
