# shellcheck shell=bash
# Starts, finds and stops the servers; sourced by tests/services. Each has a folder below $RUN with its pid, address,
# log and data.

READY_WITHIN_SECONDS=120
STOPPED_WITHIN_SECONDS=15

# Prints the address of the server that the environment names for a service; nothing if it names none.
named_address() {
    case "$1" in
    kafka) echo "${ALLUVIUM_TEST_KAFKA:-}" ;;
    minio) echo "${ALLUVIUM_TEST_S3:-}" ;;
    versity) echo "${ALLUVIUM_TEST_S3_VERSITY:-}" ;;
    esac
}

# Prints the address of our own server, which may have been started with other ports than this call was given.
own_address() {
    if [[ -f $RUN/$1/address ]]; then
        cat "$RUN/$1/address"
        return
    fi
    case "$1" in
    kafka) echo "127.0.0.1:$KAFKA_PORT" ;;
    minio) echo "http://127.0.0.1:$MINIO_PORT" ;;
    versity) echo "http://127.0.0.1:$VERSITY_PORT" ;;
    duckdb | readers | spark) echo "$(home_of "$1")/bin/python" ;;
    esac
}

# After `eval "$(tests/services env)"` the environment names our own servers: those are not elsewhere.
is_external() {
    local named
    named="$(named_address "$1")"
    [[ -n $named && $named != "$(own_address "$1")" ]]
}

address_of() {
    if is_external "$1"; then named_address "$1"; else own_address "$1"; fi
}

pid_of() { cat "$RUN/$1/pid" 2>/dev/null; }

# Readers are programs that a test starts, not servers: they are up when they are installed.
is_reader() { [[ $1 == duckdb || $1 == readers || $1 == spark ]]; }

# Tells whether the service runs; its command line names its folder, which another process under an old pid would not.
is_up() {
    local pid
    ! is_reader "$1" || { [[ -d $(home_of "$1") ]]; return; }
    pid="$(pid_of "$1")" && grep --quiet --text --fixed-strings "$RUN/$1/" "/proc/$pid/cmdline" 2>/dev/null
}

is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

need_free_port() {
    local port="$1" variable="$2"
    ! is_listening "$port" || die "port $port is taken by another program: stop it, or choose another port with $variable"
}

# Starts a server in a session of its own, so that it outlives this shell and gets none of its signals.
launch() {
    local service="$1" address="$2"
    shift 2
    echo "$address" >"$RUN/$service/address"
    setsid "$@" >"$RUN/$service/log" 2>&1 </dev/null 9>&- &
    echo "$!" >"$RUN/$service/pid"
    say "$service: starting at $address"
}

start_kafka() {
    local folder="$RUN/kafka"
    need_free_port "$KAFKA_PORT" ALLUVIUM_TEST_KAFKA_PORT
    need_free_port "$KAFKA_SASL_PORT" ALLUVIUM_TEST_KAFKA_SASL_PORT
    need_free_port "$KAFKA_SASL_PLAINTEXT_PORT" ALLUVIUM_TEST_KAFKA_SASL_PLAINTEXT_PORT
    need_free_port "$KAFKA_SSL_PORT" ALLUVIUM_TEST_KAFKA_SSL_PORT
    need_free_port "$KAFKA_MTLS_PORT" ALLUVIUM_TEST_KAFKA_MTLS_PORT
    need_free_port "$KAFKA_CONTROLLER_PORT" ALLUVIUM_TEST_KAFKA_CONTROLLER_PORT
    mkdir -p "$folder"
    has_certificates "$folder/tls" || make_certificates "$folder/tls"
    render_kafka_settings >"$folder/server.properties"
    cp "$SUPPORT/server.properties" "$folder/template.properties"
    [[ -f $folder/data/meta.properties ]] || format_kafka
    echo "127.0.0.1:$KAFKA_SASL_PORT" >"$folder/sasl-address"
    echo "127.0.0.1:$KAFKA_SASL_PLAINTEXT_PORT" >"$folder/sasl-plaintext-address"
    echo "127.0.0.1:$KAFKA_SSL_PORT" >"$folder/ssl-address"
    echo "127.0.0.1:$KAFKA_MTLS_PORT" >"$folder/mtls-address"
    launch kafka "127.0.0.1:$KAFKA_PORT" \
        java -Xms256m -Xmx512m -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
        -cp "$(kafka_classpath)" kafka.Kafka "$folder/server.properties"
}

# Tells whether a server that is up was started with the settings of this checkout, whatever ports this call was given.
is_current() {
    [[ $1 != kafka ]] ||
        { cmp --quiet "$SUPPORT/server.properties" "$RUN/kafka/template.properties" && has_certificates "$RUN/kafka/tls"; }
}

kafka_classpath() { echo "$SUPPORT:$(home_of kafka)/libs/*"; }

render_kafka_settings() {
    sed -e "s|@PORT@|$KAFKA_PORT|g" -e "s|@SASL_PORT@|$KAFKA_SASL_PORT|g" \
        -e "s|@SASL_PLAINTEXT_PORT@|$KAFKA_SASL_PLAINTEXT_PORT|g" \
        -e "s|@SSL_PORT@|$KAFKA_SSL_PORT|g" -e "s|@MTLS_PORT@|$KAFKA_MTLS_PORT|g" \
        -e "s|@CONTROLLER_PORT@|$KAFKA_CONTROLLER_PORT|g" \
        -e "s|@USER@|$KAFKA_USER|g" -e "s|@PASSWORD@|$KAFKA_PASSWORD|g" \
        -e "s|@DATA@|$RUN/kafka/data|g" -e "s|@TLS@|$RUN/kafka/tls|g" "$SUPPORT/server.properties"
}

# Every fresh start is another cluster, as a test of a replaced cluster expects.
format_kafka() {
    local cluster scram="name=$KAFKA_USER,password=$KAFKA_PASSWORD"
    cluster="$(head -c 15 /dev/urandom | base64 | tr '+/' 'pl')AA"
    quietly java -Xmx256m -cp "$(kafka_classpath)" kafka.tools.StorageTool format --standalone \
        --cluster-id "$cluster" --config "$RUN/kafka/server.properties" \
        --add-scram "SCRAM-SHA-512=[$scram]" --add-scram "SCRAM-SHA-256=[$scram]"
}

# Tells whether all certificates are there and hold for another day.
has_certificates() {
    [[ -f $1/other-ca.pem && -f $1/client.key ]] &&
        openssl x509 -checkend 86400 -noout -in "$1/client.crt" >/dev/null 2>&1
}

# Makes throw-away certificates: an authority, one of the broker and one of a client by it, and an authority that nobody
# trusts. The broker's key stands open beside its certificate, the client's is encrypted.
make_certificates() {
    local folder="$1" key=(-newkey ec -pkeyopt "ec_paramgen_curve:P-256" -nodes -days 30)
    rm -rf "$folder"
    mkdir -p "$folder"
    make_authority "$folder/ca" "alluvium tests"
    make_authority "$folder/other-ca" "alluvium strangers"
    make_certificate "$folder/server" localhost "subjectAltName=DNS:localhost,IP:127.0.0.1"
    make_certificate "$folder/client" "alluvium client" "extendedKeyUsage=clientAuth"
    cat "$folder/server.key" "$folder/server.crt" "$folder/ca.pem" >"$folder/server.pem"
    KEY_PASSWORD="$KAFKA_PASSWORD" quietly openssl pkcs8 -topk8 -in "$folder/client.key" -out "$folder/client.encrypted" \
        -passout env:KEY_PASSWORD
    mv "$folder/client.encrypted" "$folder/client.key"
}

# These two use the `key` of make_certificates.
make_authority() {
    quietly openssl req -x509 "${key[@]}" -subj "/CN=$2" -addext "keyUsage=critical,keyCertSign" \
        -keyout "$1.key" -out "$1.pem"
}

make_certificate() {
    quietly openssl req "${key[@]}" -subj "/CN=$2" -keyout "$1.key" -out "$1.csr"
    quietly openssl x509 -req -in "$1.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days 30 \
        -extfile <(echo "$3") -out "$1.crt"
}

start_minio() {
    need_free_port "$MINIO_PORT" ALLUVIUM_TEST_S3_PORT
    mkdir -p "$RUN/minio/data"
    MINIO_ROOT_USER="$S3_KEY" MINIO_ROOT_PASSWORD="$S3_SECRET" MINIO_BROWSER=off MINIO_UPDATE=off \
        launch minio "http://127.0.0.1:$MINIO_PORT" \
        "$(home_of minio)/minio" server "$RUN/minio/data" --address "127.0.0.1:$MINIO_PORT"
}

start_versity() {
    need_free_port "$VERSITY_PORT" ALLUVIUM_TEST_S3_VERSITY_PORT
    mkdir -p "$RUN/versity/data"
    ROOT_ACCESS_KEY="$S3_KEY" ROOT_SECRET_KEY="$S3_SECRET" \
        launch versity "http://127.0.0.1:$VERSITY_PORT" \
        "$(home_of versity)/versitygw" --quiet --port "127.0.0.1:$VERSITY_PORT" posix "$RUN/versity/data"
}

start_duckdb() { :; }
start_readers() { :; }
start_spark() { :; }

is_ready_kafka() {
    grep --quiet --fixed-strings 'Kafka Server started' "$RUN/kafka/log" &&
        is_kafka_at address && is_kafka_at sasl-address && is_kafka_at sasl-plaintext-address &&
        is_kafka_at ssl-address && is_kafka_at mtls-address
}

is_kafka_at() {
    local address
    address="$(cat "$RUN/kafka/$1")" && is_listening "${address##*:}"
}

is_ready_minio() { has_bucket minio; }
is_ready_versity() { has_bucket versity; }
is_ready_duckdb() { is_up duckdb; }
is_ready_readers() { is_up readers; }
is_ready_spark() { is_up spark; }

# Tells whether the bucket can be reached with our key, after an attempt to create it: a server that says yes is ready.
has_bucket() {
    local bucket
    bucket="$(own_address "$1")/$S3_BUCKET"
    s3 --request PUT "$bucket" >/dev/null 2>&1 || true
    s3 --head "$bucket" >/dev/null 2>"$RUN/$1/not-ready"
}

# Sends a signed request. curl leaves out the hash of the body, which the gateway insists on.
s3() {
    curl --silent --show-error --fail --max-time 5 --noproxy '*' --header 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
        --aws-sigv4 "aws:amz:us-east-1:s3" --user "$S3_KEY:$S3_SECRET" "$@"
}

wait_until_ready() {
    local service="$1" deadline=$((SECONDS + READY_WITHIN_SECONDS))
    until "is_ready_$service"; do
        kill -0 "$(pid_of "$service")" 2>/dev/null || give_up "$service" "stopped while starting"
        ((SECONDS < deadline)) || give_up "$service" "did not answer within $READY_WITHIN_SECONDS seconds"
        sleep 0.2
    done
    say "$service: up at $(own_address "$service")"
}

give_up() {
    local service="$1" reason="$2"
    say "the last lines of $RUN/$service/log:"
    tail -n 40 "$RUN/$service/log" >&2
    [[ ! -s $RUN/$service/not-ready ]] || cat "$RUN/$service/not-ready" >&2
    die "$service $reason"
}

stop() {
    local service="$1"
    ! is_reader "$service" && is_up "$service" || return 0
    kill "$(pid_of "$service")" 2>/dev/null || true
    if ! is_gone_within "$service" "$STOPPED_WITHIN_SECONDS"; then
        kill -KILL "$(pid_of "$service")" 2>/dev/null || true
        is_gone_within "$service" "$STOPPED_WITHIN_SECONDS" || die "$service does not stop: pid $(pid_of "$service")"
    fi
    say "$service: stopped"
}

is_gone_within() {
    local service="$1" deadline=$((SECONDS + $2))
    while is_up "$service"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

export_line() { printf 'export %s=%q\n' "$1" "$2"; }

# What the tests of SASL and TLS need beside the plain listener.
SECURED_KAFKA=(
    ALLUVIUM_TEST_KAFKA_SASL ALLUVIUM_TEST_KAFKA_SASL_PLAINTEXT ALLUVIUM_TEST_KAFKA_USER ALLUVIUM_TEST_KAFKA_PASSWORD
    ALLUVIUM_TEST_KAFKA_SSL ALLUVIUM_TEST_KAFKA_MTLS ALLUVIUM_TEST_KAFKA_CA ALLUVIUM_TEST_KAFKA_OTHER_CA
    ALLUVIUM_TEST_KAFKA_CERTIFICATE ALLUVIUM_TEST_KAFKA_KEY
)

# Says what the tests of SASL and TLS will miss of a broker that runs elsewhere: only its owner knows.
name_missing_listeners() {
    local name missing=()
    for name in "${SECURED_KAFKA[@]}"; do
        [[ -n ${!name:-} ]] || missing+=("$name")
    done
    ((${#missing[@]} == 0)) ||
        say "kafka runs elsewhere, and the tests of SASL and TLS need more of it (tests/services help): ${missing[*]}"
}

env_kafka() {
    export_line ALLUVIUM_TEST_KAFKA "$(address_of kafka)"
    if is_external kafka; then
        name_missing_listeners
        return
    fi
    local tls="$RUN/kafka/tls"
    export_line ALLUVIUM_TEST_KAFKA_SASL "$(cat "$RUN/kafka/sasl-address")"
    export_line ALLUVIUM_TEST_KAFKA_SASL_PLAINTEXT "$(cat "$RUN/kafka/sasl-plaintext-address")"
    export_line ALLUVIUM_TEST_KAFKA_SSL "$(cat "$RUN/kafka/ssl-address")"
    export_line ALLUVIUM_TEST_KAFKA_MTLS "$(cat "$RUN/kafka/mtls-address")"
    export_line ALLUVIUM_TEST_KAFKA_CA "$tls/ca.pem"
    export_line ALLUVIUM_TEST_KAFKA_OTHER_CA "$tls/other-ca.pem"
    export_line ALLUVIUM_TEST_KAFKA_CERTIFICATE "$tls/client.crt"
    export_line ALLUVIUM_TEST_KAFKA_KEY "$tls/client.key"
    export_line ALLUVIUM_TEST_KAFKA_USER "$KAFKA_USER"
    export_line ALLUVIUM_TEST_KAFKA_PASSWORD "$KAFKA_PASSWORD"
}

env_minio() {
    export_line ALLUVIUM_TEST_S3 "$(address_of minio)"
    env_s3
}

env_versity() {
    export_line ALLUVIUM_TEST_S3_VERSITY "$(address_of versity)"
    env_s3
}

env_s3() {
    export_line ALLUVIUM_TEST_S3_BUCKET "$S3_BUCKET"
    export_line ALLUVIUM_TEST_S3_KEY "$S3_KEY"
    export_line ALLUVIUM_TEST_S3_SECRET "$S3_SECRET"
}

env_duckdb() { export_line ALLUVIUM_TEST_DUCKDB "$(home_of duckdb)/bin/python"; }
env_readers() { export_line ALLUVIUM_TEST_READERS "$(home_of readers)/bin/python"; }
env_spark() { export_line ALLUVIUM_TEST_SPARK "$(home_of spark)/bin/python"; }
