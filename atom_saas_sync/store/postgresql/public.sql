-- For the schema atom_sync only: what the Atom backend and people see in public, each part under a line with its name.
-- The seven tables of the backend's models have just its columns; jsonb is NULL for a text that it cannot hold. A part
-- is left out where the backend has a table of that name. Writing through a view with jsonb, a text that was not written
-- stays as it is, byte by byte.

-- public.usable_skill
CREATE VIEW public.usable_skill AS SELECT * FROM atom_sync.usable_skill;

-- public.skill_rating
CREATE VIEW public.skill_rating AS SELECT * FROM atom_sync.skill_rating;

-- public.failed_rating_upload
CREATE VIEW public.failed_rating_upload AS SELECT * FROM atom_sync.failed_rating_upload;

-- public.sync_state
CREATE VIEW public.sync_state AS
SELECT id, device_id, user_id, status, last_sync, skills_cached, categories_cached, last_error, error_count,
    last_sync_at, last_successful_sync_at, auto_sync_enabled, total_syncs, successful_syncs, failed_syncs,
    pending_actions_count, created_at, updated_at
FROM atom_sync.sync_state;

-- public.websocket_state
CREATE VIEW public.websocket_state AS
SELECT id, connected, ws_url, last_connected_at, last_message_at, disconnect_reason, reconnect_attempts,
    consecutive_failures, max_reconnect_attempts, fallback_to_polling, fallback_started_at, next_ws_attempt_at,
    rate_limit_messages_per_sec, websocket_enabled
FROM atom_sync.websocket_state;

-- public.skill_ratings
CREATE VIEW public.skill_ratings AS
SELECT id, tenant_id, skill_id, user_id, rating, review, synced_to_saas, synced_at, remote_rating_id, is_flagged,
    is_visible, helpful_count, not_helpful_count, created_at, updated_at
FROM atom_sync.skill_ratings;

-- public.failed_rating_uploads
CREATE VIEW public.failed_rating_uploads AS
SELECT id, rating_id, error_message, failed_at, last_retry_at, retry_count, max_retries, tenant_id
FROM atom_sync.failed_rating_uploads;

-- public.skill_cache
CREATE VIEW public.skill_cache AS
SELECT id::integer AS id, skill_id, atom_sync.atom_sync_jsonb(skill_data) AS skill_data, expires_at, created_at,
    updated_at, tenant_id, hit_count::integer AS hit_count, last_hit_at
FROM atom_sync.skill_cache;
CREATE OR REPLACE FUNCTION atom_sync.skill_cache_view_written() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM skill_cache WHERE id = OLD.id;
        RETURN CASE WHEN FOUND THEN OLD END;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE skill_cache AS c SET id = NEW.id, skill_id = NEW.skill_id, skill_data = CASE
                WHEN NEW.skill_data IS DISTINCT FROM OLD.skill_data THEN NEW.skill_data::text ELSE c.skill_data END,
            expires_at = NEW.expires_at, created_at = NEW.created_at, updated_at = NEW.updated_at,
            tenant_id = NEW.tenant_id, hit_count = NEW.hit_count, last_hit_at = NEW.last_hit_at
        WHERE id = OLD.id;
        RETURN CASE WHEN FOUND THEN NEW END;
    END IF;
    NEW.id := coalesce(NEW.id, nextval(pg_get_serial_sequence('skill_cache', 'id')));
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, now());
    NEW.tenant_id := coalesce(NEW.tenant_id, 'default');
    NEW.hit_count := coalesce(NEW.hit_count, 0);
    INSERT INTO skill_cache (id, skill_id, skill_data, expires_at, created_at, updated_at, tenant_id, hit_count, last_hit_at)
    VALUES (NEW.id, NEW.skill_id, NEW.skill_data::text, NEW.expires_at, NEW.created_at, NEW.updated_at, NEW.tenant_id,
        NEW.hit_count, NEW.last_hit_at)
    RETURNING expires_at INTO NEW.expires_at;
    RETURN NEW;
END $$;
CREATE TRIGGER skill_cache_view_written INSTEAD OF INSERT OR UPDATE OR DELETE ON public.skill_cache
    FOR EACH ROW EXECUTE FUNCTION atom_sync.skill_cache_view_written();

-- public.category_cache
CREATE VIEW public.category_cache AS
SELECT id::integer AS id, category_name, atom_sync.atom_sync_jsonb(category_data) AS category_data, expires_at,
    created_at, updated_at, tenant_id, hit_count::integer AS hit_count, last_hit_at
FROM atom_sync.category_cache;
CREATE OR REPLACE FUNCTION atom_sync.category_cache_view_written() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM category_cache WHERE id = OLD.id;
        RETURN CASE WHEN FOUND THEN OLD END;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE category_cache AS c SET id = NEW.id, category_name = NEW.category_name, category_data = CASE
                WHEN NEW.category_data IS DISTINCT FROM OLD.category_data THEN NEW.category_data::text
                ELSE c.category_data END,
            expires_at = NEW.expires_at, created_at = NEW.created_at, updated_at = NEW.updated_at,
            tenant_id = NEW.tenant_id, hit_count = NEW.hit_count, last_hit_at = NEW.last_hit_at
        WHERE id = OLD.id;
        RETURN CASE WHEN FOUND THEN NEW END;
    END IF;
    NEW.id := coalesce(NEW.id, nextval(pg_get_serial_sequence('category_cache', 'id')));
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, now());
    NEW.tenant_id := coalesce(NEW.tenant_id, 'default');
    NEW.hit_count := coalesce(NEW.hit_count, 0);
    INSERT INTO category_cache (id, category_name, category_data, expires_at, created_at, updated_at, tenant_id, hit_count,
        last_hit_at)
    VALUES (NEW.id, NEW.category_name, NEW.category_data::text, NEW.expires_at, NEW.created_at, NEW.updated_at,
        NEW.tenant_id, NEW.hit_count, NEW.last_hit_at)
    RETURNING expires_at INTO NEW.expires_at;
    RETURN NEW;
END $$;
CREATE TRIGGER category_cache_view_written INSTEAD OF INSERT OR UPDATE OR DELETE ON public.category_cache
    FOR EACH ROW EXECUTE FUNCTION atom_sync.category_cache_view_written();

-- public.conflict_log
CREATE VIEW public.conflict_log AS
SELECT id::integer AS id, skill_id, conflict_type, severity, atom_sync.atom_sync_jsonb(local_data) AS local_data,
    atom_sync.atom_sync_jsonb(remote_data) AS remote_data, resolution_strategy,
    atom_sync.atom_sync_jsonb(resolved_data) AS resolved_data, resolved_at, resolved_by, created_at, updated_at,
    tenant_id
FROM atom_sync.conflict_log;
CREATE OR REPLACE FUNCTION atom_sync.conflict_log_view_written() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        DELETE FROM conflict_log WHERE id = OLD.id;
        RETURN CASE WHEN FOUND THEN OLD END;
    ELSIF TG_OP = 'UPDATE' THEN
        UPDATE conflict_log AS c SET id = NEW.id, skill_id = NEW.skill_id, conflict_type = NEW.conflict_type,
            severity = NEW.severity,
            local_data = CASE
                WHEN NEW.local_data IS DISTINCT FROM OLD.local_data THEN NEW.local_data::text ELSE c.local_data END,
            remote_data = CASE
                WHEN NEW.remote_data IS DISTINCT FROM OLD.remote_data THEN NEW.remote_data::text ELSE c.remote_data END,
            resolution_strategy = NEW.resolution_strategy,
            resolved_data = CASE
                WHEN NEW.resolved_data IS DISTINCT FROM OLD.resolved_data THEN NEW.resolved_data::text
                ELSE c.resolved_data END,
            resolved_at = NEW.resolved_at, resolved_by = NEW.resolved_by, created_at = NEW.created_at,
            updated_at = NEW.updated_at, tenant_id = NEW.tenant_id
        WHERE id = OLD.id;
        RETURN CASE WHEN FOUND THEN NEW END;
    END IF;
    NEW.id := coalesce(NEW.id, nextval(pg_get_serial_sequence('conflict_log', 'id')));
    NEW.created_at := coalesce(NEW.created_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, now());
    NEW.tenant_id := coalesce(NEW.tenant_id, 'default');
    INSERT INTO conflict_log (id, skill_id, conflict_type, severity, local_data, remote_data, resolution_strategy,
        resolved_data, resolved_at, resolved_by, created_at, updated_at, tenant_id)
    VALUES (NEW.id, NEW.skill_id, NEW.conflict_type, NEW.severity, NEW.local_data::text, NEW.remote_data::text,
        NEW.resolution_strategy, NEW.resolved_data::text, NEW.resolved_at, NEW.resolved_by, NEW.created_at,
        NEW.updated_at, NEW.tenant_id);
    RETURN NEW;
END $$;
CREATE TRIGGER conflict_log_view_written INSTEAD OF INSERT OR UPDATE OR DELETE ON public.conflict_log
    FOR EACH ROW EXECUTE FUNCTION atom_sync.conflict_log_view_written();
